"""Logits of whole volumes of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from hsf_finetune.config.settings.preprocessing_settings import Preprocessing
from hsf_finetune.networks.padding import (
    front_widths,
    pad_around,
    pad_to,
    padded_shape,
    remove_padding,
)
from hsf_finetune.networks.sliding_windows import Windows


def volume_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    divisor: Sequence[int],
    how: Preprocessing,
    shift_vox: Sequence[int] = (0, 0, 0),
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
        shift_vox: how far the volume is shifted along each axis against the grid on which the
            network halves it, by other padding; 0 leaves it where it is.

    Returns:
        (B, classes, X, Y, Z).
    """
    if any(shift_vox):
        return _shifted_logits(network, image, divisor, how, shift_vox)
    whole, done = None, 0
    for slab in volume_slabs(network, image, divisor, how):
        if slab.shape[2] == image.shape[2]:
            return slab
        if whole is None:
            whole = slab.new_empty((*slab.shape[:2], *image.shape[2:]))
        whole[:, :, done : done + slab.shape[2]] = slab
        done += slab.shape[2]
    assert whole is not None
    return whole


def volume_slabs(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    divisor: Sequence[int],
    how: Preprocessing,
) -> Iterator[Tensor]:
    """The same a few planes at a time, so that not all logits are held at once.

    Yields:
        (B, classes, planes, Y, Z), all X planes in their order.
    """
    shape, part = image.shape[2:], padded_shape(how.window_vox, divisor)
    size, padding, mode = volume_size(shape, divisor, how), how.padding, how.padding_mode
    if any(n > w for n, w in zip(size, part, strict=True)) and _of_version_0_1_0(how):
        # MONAI pads what is smaller than a window, the larger half behind.
        least = [max(n, w) for n, w in zip(shape, part, strict=True)]
        size, padding, mode = (least[0], least[1], least[2]), "symmetric", "zeros"
    padded = pad_to(image, size, 0.0, padding, mode)
    if all(n <= w for n, w in zip(size, part, strict=True)):
        yield remove_padding(network(padded), shape, padding)
        return
    front = front_widths([n - m for n, m in zip(size, shape, strict=True)], padding)
    kept, y, z = (slice(first, first + n) for first, n in zip(front, shape, strict=True))
    plane = 0
    for slab in _windows(size, part, how).slabs(network, padded):
        first, last = max(kept.start - plane, 0), min(kept.stop - plane, slab.shape[2])
        plane += slab.shape[2]
        if first < last:
            yield slab[:, :, first:last, y, z]


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


def _shifted_logits(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    divisor: Sequence[int],
    how: Preprocessing,
    shift_vox: Sequence[int],
) -> Tensor:
    """Logits of volumes that lie elsewhere on the network's grid; they grow where they have to."""
    shape, size = list(image.shape[2:]), list(volume_size(image.shape[2:], divisor, how))
    usual = front_widths([n - m for n, m in zip(size, shape, strict=True)], how.padding)
    front = []
    for axis, (first, shift, step) in enumerate(zip(usual, shift_vox, divisor, strict=True)):
        if (first + shift) % step + shape[axis] > size[axis]:
            size[axis] += math.lcm(step, (how.multiple_vox or (1, 1, 1))[axis])
        places = range((first + shift) % step, size[axis] - shape[axis] + 1, step)
        front.append(min(places, key=lambda place: abs(place - first)))
    padded = pad_around(image, size, front, mode=how.padding_mode)
    logits = volume_logits(network, padded, divisor, how)
    x, y, z = (slice(first, first + n) for first, n in zip(front, shape, strict=True))
    return logits[..., x, y, z]


def _of_version_0_1_0(how: Preprocessing) -> bool:
    return (how.padding, how.padded_size, how.blending) == ("end", "multiple", "gaussian")


def _windows(size: Sequence[int], window: Sequence[int], how: Preprocessing) -> Windows:
    """The windows of a volume, which are no longer than it is."""
    part = tuple(map(min, size, window))
    if how.blending == "constant":
        return Windows.at_steps(size, part, how.overlap, torch.ones(part))
    if how.blending == "monai" or _of_version_0_1_0(how):
        # Imported late: MONAI imports all of itself.
        from monai.data.utils import compute_importance_map

        weights = compute_importance_map(part, mode="gaussian", sigma_scale=how.sigma_share)
        return Windows.at_steps(size, part, how.overlap, weights)
    if how.padded_size == "window":
        weights = _window_weights(part, how.sigma_share, even_centre=0.0)
        return Windows.even(size, part, how.overlap, weights)
    return Windows.at_steps(size, part, how.overlap, _window_weights(part, how.sigma_share))


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
