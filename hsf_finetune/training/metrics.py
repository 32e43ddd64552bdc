"""Validation Dice per class, on the network's grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def case_dice(
    logits: Tensor, rows: Tensor, allowed: Tensor, classes: Sequence[str]
) -> dict[str, float]:
    """Dice of each annotated foreground set of one case, in the case's own protocol.

    The probabilities of a set's classes are summed, and a voxel goes to the set
    with the highest sum. A class that is absent from both sides is left out; one
    that is only in the truth, or only predicted, counts as 0.

    Args:
        logits: (C, X, Y, Z).
        rows: label rows, (X, Y, Z).
        allowed: sets of the label rows, (R, C) bool.
        classes: the model's class names.

    Returns:
        Name (names of a set joined by +) -> Dice.
    """
    sets = allowed[allowed.any(dim=1)].float()
    mass = torch.einsum("rc,cxyz->rxyz", sets, logits.float().softmax(dim=0))
    predicted = mass.argmax(dim=0).flatten()
    truth = rows.flatten().long()
    count = len(sets)
    joint = torch.bincount(truth * count + predicted, minlength=count * count)
    joint = joint.view(count, count).double().cpu()
    both = joint.diagonal()
    sizes = joint.sum(dim=0) + joint.sum(dim=1)
    scores = {}
    for row in range(count):
        members = sets[row].bool().tolist()
        if members[0] or sizes[row] == 0:
            continue
        name = "+".join(c for c, member in zip(classes, members, strict=True) if member)
        scores[name] = float(2 * both[row] / sizes[row])
    return scores


def mean_per_class(cases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean Dice of each class over the cases that have it, in order of appearance."""
    names = dict.fromkeys(name for case in cases for name in case)
    return {
        name: math.fsum(case[name] for case in cases if name in case)
        / sum(name in case for case in cases)
        for name in names
    }
