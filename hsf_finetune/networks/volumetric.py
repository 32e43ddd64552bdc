"""Logits of whole volumes of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import PaddedSize, Padding
from hsf_finetune.networks.padding import pad_to, padded_shape, remove_padding

_OVERLAP = 0.5
"""Share of a window that its neighbour also covers."""
_SIGMA_SHARE = 0.125
"""Standard deviation of a window's weights, in lengths of the window, as in nnU-Net."""


def volume_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    divisor: Sequence[int],
    window_vox: Sequence[int],
    padding: Padding = "both",
    padded_size: PaddedSize = "multiple",
) -> Tensor:
    """Logits of whole volumes, in one piece where that fits, else through a sliding window.

    Windows overlap by half and are blended with Gaussian weights, so that no borders
    are visible (Isensee et al., 2021).

    Args:
        network: (B, C, x, y, z) -> (B, classes, x, y, z).
        image: (B, C, X, Y, Z), any size.
        divisor: sizes the network needs multiples of.
        window_vox: largest size in one piece.
        padding: where volumes are padded; `end` also gives the windows of version 0.1.0.
        padded_size: what they are padded to, at least; `window` also gives nnU-Net's windows,
            evenly spread over the volume.

    Returns:
        (B, classes, X, Y, Z).
    """
    shape, window = image.shape[2:], padded_shape(window_vox, divisor)
    size = padded_shape(shape, divisor)
    if padded_size == "window":
        x, y, z = (max(pair) for pair in zip(shape, window, strict=True))
        size = (x, y, z)
    part = tuple(min(n, w) for n, w in zip(size, window, strict=True))
    if part == size:
        logits = network(pad_to(image, size, 0.0, padding))
    elif padded_size == "window":
        logits = _slide_evenly(network, pad_to(image, size, 0.0, padding), window)
    elif padding == "end":
        return _slide(network, image, window, None)
    else:
        logits = _slide(network, pad_to(image, size, 0.0, padding), part, _window_weights(part))
    return remove_padding(logits, shape, padding)


def _slide(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    window: Sequence[int],
    weights: Tensor | None,
) -> Tensor:
    """Logits through windows with these weights; None are MONAI's."""
    result = sliding_window_inference(
        image,
        window,
        sw_batch_size=1,
        predictor=network,
        overlap=_OVERLAP,
        mode="gaussian",
        sigma_scale=_SIGMA_SHARE,
        roi_weight_map=weights,
    )
    assert isinstance(result, Tensor)
    return result


def _slide_evenly(
    network: Callable[[Tensor], Tensor], image: Tensor, window: Sequence[int]
) -> Tensor:
    """Logits through windows at equal distances, from one end of the volume to the other."""
    weights = _window_weights(window, even_centre=0.0).to(image.device)
    starts = [_even_starts(n, w) for n, w in zip(image.shape[2:], window, strict=True)]
    total, seen = torch.zeros(()), torch.zeros(image.shape[2:], device=image.device)
    for start in product(*starts):
        x, y, z = (slice(first, first + w) for first, w in zip(start, window, strict=True))
        logits = network(image[..., x, y, z]).float()
        if not total.dim():
            total = logits.new_zeros((*logits.shape[:2], *image.shape[2:]))
        total[..., x, y, z] += logits * weights
        seen[x, y, z] += weights
    return total / seen


def _even_starts(size: int, window: int) -> list[int]:
    """Where windows start along an axis: at both ends, and between them at most half a window on."""
    rest = size - window
    steps = math.ceil(rest / (window * (1 - _OVERLAP)))
    return [round(rest / steps * n) for n in range(steps + 1)] if steps else [0]


def _window_weights(window: Sequence[int], even_centre: float = -0.5) -> Tensor:
    """Gaussian weights of a window, (x, y, z).

    They are highest in its middle; where its size is even, that is at `even_centre` voxels from
    the second of the two in the middle.

    MONAI's own are at least 1e-3, which makes more than half of a window equally important, its
    border included, where the network sees least of the surroundings.
    """
    x, y, z = (
        torch.exp(-0.5 * ((torch.arange(n) - middle) / (_SIGMA_SHARE * n)) ** 2)
        for n in window
        for middle in [n // 2 + (even_centre if n % 2 == 0 else 0.0)]
    )
    return x[:, None, None] * y[:, None] * z
