"""Networks that were trained on images with axes of another order or direction."""

from __future__ import annotations

from torch import Tensor

from hsf_finetune.networks.layers.strides import Triple

_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_REVERSED = "LPI"
"""The letters of axes that point against those of RAS+."""


class AxisOrder:
    """Turns images that are RAS+ to the axes of a network, and its logits back.

    Kernels belong to the axes they were trained along, and a strided convolution does
    not commute with a flip. So images are turned before the first layer, and logits
    after the last one; the network in between is exactly the original one.

    Args:
        orientation: where the network's axes point, such as `SAR`.
    """

    def __init__(self, orientation: str) -> None:
        self._axes = tuple(_AXIS[letter] for letter in orientation)
        self._flipped = tuple(i - 3 for i, letter in enumerate(orientation) if letter in _REVERSED)

    def to_network(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) along the network's axes."""
        return self._flip(image.permute(0, 1, *(axis + 2 for axis in self._axes)))

    def to_image(self, logits: Tensor) -> Tensor:
        """Logits whose last three axes are the network's, along X, Y and Z."""
        first = logits.dim() - 3
        back = (first + self._axes.index(axis) for axis in range(3))
        return self._flip(logits).permute(*range(first), *back)

    def along_image(self, sizes: Triple) -> Triple:
        """Sizes along the network's axes, along X, Y and Z."""
        x, y, z = (sizes[self._axes.index(axis)] for axis in range(3))
        return x, y, z

    def _flip(self, x: Tensor) -> Tensor:
        # ONNX has no flip of no axis.
        return x.flip(self._flipped) if self._flipped else x
