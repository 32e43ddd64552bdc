"""Logits of whole volumes of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import Preprocessing
from hsf_finetune.networks.padding import pad_to, padded_shape, remove_padding


def volume_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    divisor: Sequence[int],
    how: Preprocessing,
) -> Tensor:
    """Logits of whole volumes, in one piece where that fits, else through a sliding window.

    Windows overlap and are blended with Gaussian weights, so that no borders are visible
    (Isensee et al., 2021), or as MONAI does it.

    Args:
        network: (B, C, x, y, z) -> (B, classes, x, y, z).
        image: (B, C, X, Y, Z), any size.
        divisor: sizes the network needs multiples of.
        how: the largest size in one piece, how windows are placed and blended, and how volumes
            are padded. With padding at the `end`, windows are those of version 0.1.0; where
            volumes are padded to windows, these are spread evenly, as in nnU-Net.

    Returns:
        (B, classes, X, Y, Z).
    """
    shape, window = image.shape[2:], padded_shape(how.window_vox, divisor)
    size = volume_size(shape, divisor, how)
    part = tuple(min(n, w) for n, w in zip(size, window, strict=True))
    version_0_1_0 = how.padding == "end" and how.padded_size == "multiple"
    if part != size and version_0_1_0 and how.blending == "gaussian":
        return _slide(network, image, window, how)
    padded = pad_to(image, size, 0.0, how.padding, how.padding_mode)
    if part == size:
        logits = network(padded)
    elif how.blending != "gaussian":
        logits = _slide(network, padded, part, how)
    elif how.padded_size == "window":
        logits = _slide_evenly(network, padded, window, how)
    else:
        logits = _slide(network, padded, part, how, _window_weights(part, how.sigma_share))
    return remove_padding(logits, shape, how.padding)


def volume_size(
    shape: Sequence[int], divisor: Sequence[int], how: Preprocessing
) -> tuple[int, int, int]:
    """What a volume of a shape is padded to in prediction, (x, y, z)."""
    to_window = how.padded_size == "window"
    least = padded_shape(how.window_vox if to_window else shape, divisor)
    steps = map(math.lcm, (1, 1, 1) if to_window else divisor, how.multiple_vox or (1, 1, 1))
    sizes = map(max, shape, how.least_vox or (1, 1, 1))
    x, y, z = (max(-(-n // k) * k, m) for n, k, m in zip(sizes, steps, least, strict=True))
    return (x, y, z)


def _slide(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    window: Sequence[int],
    how: Preprocessing,
    weights: Tensor | None = None,
) -> Tensor:
    """Logits through windows with these weights; None are MONAI's."""
    # Imported late: MONAI imports all of itself, and most scans need no windows.
    from monai.inferers.utils import sliding_window_inference

    result = sliding_window_inference(
        image,
        window,
        sw_batch_size=1,
        predictor=network,
        overlap=how.overlap,
        mode="constant" if how.blending == "constant" else "gaussian",
        sigma_scale=how.sigma_share,
        roi_weight_map=weights,
    )
    assert isinstance(result, Tensor)
    return result


def _slide_evenly(
    network: Callable[[Tensor], Tensor], image: Tensor, window: Sequence[int], how: Preprocessing
) -> Tensor:
    """Logits through windows at equal distances, from one end of the volume to the other."""
    weights = _window_weights(window, how.sigma_share, even_centre=0.0).to(image.device)
    sizes = zip(image.shape[2:], window, strict=True)
    starts = [_even_starts(n, w, how.overlap) for n, w in sizes]
    total, seen = torch.zeros(()), torch.zeros(image.shape[2:], device=image.device)
    for start in product(*starts):
        x, y, z = (slice(first, first + w) for first, w in zip(start, window, strict=True))
        logits = network(image[..., x, y, z]).float()
        if not total.dim():
            total = logits.new_zeros((*logits.shape[:2], *image.shape[2:]))
        total[..., x, y, z] += logits * weights
        seen[x, y, z] += weights
    return total.div_(seen)


def _even_starts(size: int, window: int, overlap: float) -> list[int]:
    """Where windows start along an axis: at both ends, and between them with at least `overlap`."""
    rest = size - window
    steps = math.ceil(rest / (window * (1 - overlap)))
    return [round(rest / steps * n) for n in range(steps + 1)] if steps else [0]


def _window_weights(window: Sequence[int], sigma_share: float, even_centre: float = -0.5) -> Tensor:
    """Gaussian weights of a window, (x, y, z).

    They are highest in its middle; where its size is even, that is at `even_centre` voxels from
    the second of the two in the middle.

    MONAI's own are at least 1e-3, which makes more than half of a window equally important, its
    border included, where the network sees least of the surroundings.
    """
    x, y, z = (
        torch.exp(-0.5 * ((torch.arange(n) - middle) / (sigma_share * n)) ** 2)
        for n in window
        for middle in [n // 2 + (even_centre if n % 2 == 0 else 0.0)]
    )
    return x[:, None, None] * y[:, None] * z
