"""Dice in the labelling protocol of each case, and the masks that are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor


def set_masks(
    probabilities: Tensor, rows: Tensor, allowed: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Prediction and truth of each annotated foreground set F of one case.

    As in the loss, a voxel whose allowed set is part of F is true, one whose allowed set
    shares no class with F is false, and any other does not count: it is False in both masks.
    A voxel is predicted as F where the summed probability of the classes in F is larger than
    that of every alternative: the protocol's sets that share no class with F, and each class
    that is not in the protocol. Of equal ones, the one with the earlier output channel is
    predicted. Where every set holds one class, the prediction is that of `argmax`, as in a
    segmentation.

    Args:
        probabilities: (C, X, Y, Z).
        rows: label rows, (X, Y, Z).
        allowed: sets of the label rows, (R, C) bool; empty rows are padding.

    Yields:
        The label row of F, and the masks of prediction and truth, (X, Y, Z) bool.
    """
    row_of_voxel = rows.long()
    unknown = torch.diag(~allowed.any(dim=0))
    sets = torch.cat([allowed, unknown[unknown.any(dim=1)]])
    summed = torch.einsum("rc,cxyz->rxyz", sets.to(probabilities.dtype), probabilities)
    overlaps = (sets.float() @ allowed.float().T) > 0
    first = sets.int().argmax(dim=1)
    for row in range(len(allowed)):
        if allowed[row, 0] or not allowed[row].any():
            continue
        part = allowed.any(dim=1) & ~(allowed & ~allowed[row]).any(dim=1)
        predicted = torch.ones_like(rows, dtype=torch.bool)
        disjoint = ~overlaps[:, row] & sets.any(dim=1)
        for side, is_larger in ((first < first[row], torch.gt), (first > first[row], torch.ge)):
            alternatives = summed[disjoint & side]
            if len(alternatives):
                predicted &= is_larger(summed[row], alternatives.amax(dim=0))
        true = part[row_of_voxel]
        counts = true | ~overlaps[: len(allowed), row][row_of_voxel]
        yield row, predicted & counts, true


def case_dice(
    logits: Tensor, rows: Tensor, allowed: Tensor, classes: Sequence[str]
) -> dict[str, float]:
    """Dice of each annotated foreground set of one case.

    It compares the masks of `set_masks`. A set that is empty in both is left out; one that
    is empty in one of them has a Dice of 0.

    Args:
        logits: (C, X, Y, Z).
        rows: label rows, (X, Y, Z).
        allowed: sets of the label rows, (R, C) bool.
        classes: the model's class names.

    Returns:
        Name (names of a set joined by +) -> Dice.
    """
    scores = {}
    for row, predicted, true in set_masks(logits.float().softmax(dim=0), rows, allowed):
        both, either = int((predicted & true).sum()), int(predicted.sum()) + int(true.sum())
        if either:
            members = allowed[row].tolist()
            name = "+".join(c for c, member in zip(classes, members, strict=True) if member)
            scores[name] = 2 * both / either
    return scores


def mean_over_cases(cases: Sequence[Mapping[str, float]]) -> float:
    """The mean Dice: each case's mean over its classes, then the mean over the cases with any.

    So do the tables of scores (`evaluation.score_tables`), whose interval is over subjects.
    """
    means = [math.fsum(case.values()) / len(case) for case in cases if case]
    return math.fsum(means) / max(len(means), 1)


def mean_per_class(cases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean Dice of each class over the cases that have it, in order of appearance."""
    names = dict.fromkeys(name for case in cases for name in case)
    return {
        name: math.fsum(case[name] for case in cases if name in case)
        / sum(name in case for case in cases)
        for name in names
    }
