"""Logits of whole volumes of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from hsf_finetune.networks.padding import pad_to, padded_shape


def volume_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    divisor: Sequence[int],
    window_vox: Sequence[int],
    overlap: float = 0.5,
) -> Tensor:
    """Logits of whole volumes, in one piece where that fits, else through a sliding window.

    Windows overlap by half and are blended with Gaussian weights, so that no borders
    are visible (Isensee et al., 2021).

    Args:
        network: (B, C, x, y, z) -> (B, classes, x, y, z).
        image: (B, C, X, Y, Z), any size.
        divisor: sizes the network needs multiples of.
        window_vox: largest size in one piece.
        overlap: share of a window that its neighbour also covers.

    Returns:
        (B, classes, X, Y, Z).
    """
    shape = tuple(image.shape[2:])
    if all(n <= p for n, p in zip(shape, window_vox, strict=True)):
        logits = network(pad_to(image, padded_shape(shape, divisor), 0.0))
        return logits[:, :, : shape[0], : shape[1], : shape[2]]
    window = padded_shape(window_vox, divisor)
    result = sliding_window_inference(
        image, window, sw_batch_size=1, predictor=network, overlap=overlap, mode="gaussian"
    )
    assert isinstance(result, Tensor)
    return result
