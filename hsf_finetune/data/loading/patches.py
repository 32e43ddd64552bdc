"""Where patches are cut out of volumes that are larger than a patch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.data.preprocessing.resampling import Triple


def choose_patch_corner(
    label: Tensor,
    patch: Triple,
    foreground_share: float,
    foreground: Tensor,
    informative: Tensor,
    seed: int,
) -> Triple:
    """The first corner of a patch around a labelled voxel, or anywhere.

    Where parts of the volume are not annotated (sparse annotation), "anywhere" is around
    an annotated voxel, since training learns nothing from other patches.

    Args:
        label: label rows, (X, Y, Z).
        patch: size of the patch in voxels; axes of the volume that are no longer start at 0.
        foreground_share: probability of centring on a labelled voxel.
        foreground: which label rows count as labelled, (rows,) bool.
        informative: which label rows are annotated, that is exclude any class, (rows,) bool.
        seed: decides the place.

    Returns:
        Indices of the corner along (X, Y, Z).
    """
    free = [max(n - p, 0) for n, p in zip(label.shape, patch, strict=True)]
    if not any(free):
        return (0, 0, 0)
    random = np.random.default_rng(seed)
    wanted = random.random() < foreground_share
    labelled = torch.nonzero(foreground[label.long()]) if wanted else label.new_empty(0)
    if not len(labelled) and not informative.all():
        annotated = informative[label.long()]
        labelled = label.new_empty(0) if annotated.all() else torch.nonzero(annotated)
    if len(labelled):
        centre = labelled[random.integers(len(labelled))].tolist()
        corner = [min(max(c - p // 2, 0), f) for c, p, f in zip(centre, patch, free, strict=True)]
    else:
        corner = [int(random.integers(f + 1)) for f in free]
    return (corner[0], corner[1], corner[2])
