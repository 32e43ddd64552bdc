"""Where to cut patches out of volumes that are larger than a patch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Triple = tuple[int, int, int]


def patch_corner(
    label: Tensor,
    patch: Triple,
    foreground_share: float,
    foreground: Tensor,
    stated: Tensor,
    seed: int,
) -> Triple:
    """Where to cut a patch: around a labelled voxel, or anywhere.

    Where parts of the volume say nothing (sparse annotation), "anywhere" is around a
    voxel that says something, since other patches would teach nothing.

    Args:
        label: label rows, (X, Y, Z).
        patch: size of the patch; an axis that is not larger than it starts at 0.
        foreground_share: probability of centring on a labelled voxel.
        foreground: which label rows count as labelled, (rows,) bool.
        stated: which label rows say anything at all, (rows,) bool.
        seed: decides the place.
    """
    free = [max(n - p, 0) for n, p in zip(label.shape, patch, strict=True)]
    if not any(free):
        return (0, 0, 0)
    random = np.random.default_rng(seed)
    wanted = random.random() < foreground_share
    labelled = torch.nonzero(foreground[label.long()]) if wanted else label.new_empty(0)
    if not len(labelled) and not stated.all():
        says = stated[label.long()]
        labelled = label.new_empty(0) if says.all() else torch.nonzero(says)
    if len(labelled):
        centre = labelled[random.integers(len(labelled))].tolist()
        corner = [min(max(c - p // 2, 0), f) for c, p, f in zip(centre, patch, free, strict=True)]
    else:
        corner = [int(random.integers(f + 1)) for f in free]
    return (corner[0], corner[1], corner[2])
