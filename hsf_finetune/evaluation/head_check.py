"""What the new head predicts for the source model's classes, beside the source's own head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_label_rows
from hsf_finetune.data.volumes.read_volume import Volume, read_volume
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.weights.transfer.class_rules import ClassRule


@dataclass(frozen=True)
class ClassGroup:
    """Classes of two heads that can only be compared together.

    Args:
        name: of the classes of the source.
        source: their channels in the source's head; empty for classes that are fresh.
        target: their channels in the new head; empty for classes that were dropped.
    """

    name: str
    source: tuple[int, ...]
    target: tuple[int, ...]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ClassGroup:
        """The group that `asdict` wrote, in version 0.1.0 with the keys `there` and `here`."""
        source = plain["source" if "source" in plain else "there"]
        target = plain["target" if "target" in plain else "here"]
        return cls(plain["name"], tuple(source), tuple(target))


@dataclass(frozen=True)
class HeadCheckRow:
    """One class (or group of classes) of the source on one case.

    Args:
        name: of the source's classes.
        targets: classes of the new head that stand for it.
        before: Dice of the source's own head; NaN where truth and prediction lack it.
        after: Dice of the new head, its classes taken together.
    """

    name: str
    targets: tuple[str, ...]
    before: float
    after: float


@dataclass(frozen=True)
class HeadCheck:
    """The source model with its own head and with the new one, on one case.

    Args:
        case: its name.
        rows: what can be compared.
        agreement: share of voxels for which both predict the same.
    """

    case: str
    rows: tuple[HeadCheckRow, ...]
    agreement: float

    def lines(self) -> list[str]:
        """The comparison for a terminal."""
        return [
            f"source model on {self.case}: its own head and the new one agree on "
            f"{_percent(self.agreement)} of the voxels",
            *(
                f"  {row.name}: Dice {row.before:.3f} by its own head, {row.after:.3f} by the new "
                "one" + ("" if row.targets == (row.name,) else f" ({' + '.join(row.targets)})")
                for row in self.rows
            ),
        ]


def check_head(
    source: ScanModel, target: ScanModel, rules: Sequence[ClassRule], case: Case
) -> HeadCheck | None:
    """Scores a transfer on one case, before any training.

    Both networks predict the case; classes that one head separates and the other does not
    are taken together (their probabilities summed) in prediction and truth. Where heads
    were transferred exactly, both columns are the same.

    Args:
        source: the checkpoint's network with its own head and classes.
        target: the network after the transfer.
        rules: how its head was made.
        case: an annotated scan.

    Returns:
        The comparison; None where the new head has nothing of the old one.
    """
    groups = group_classes(rules, source.card.classes)
    if not any(group.source and group.target for group in groups[1:]):
        return None
    predicted = (
        predict_groups(source, case, [group.source for group in groups])[0],
        predict_groups(target, case, [group.target for group in groups])[0],
    )
    truth = group_truth(case, [group.target for group in groups])
    before, after = (np.where(truth >= 0, volume, -1) for volume in predicted)
    return HeadCheck(
        case=case.name,
        rows=tuple(
            HeadCheckRow(
                group.name,
                tuple(target.card.classes[channel] for channel in group.target),
                _dice(before == number, truth == number),
                _dice(after == number, truth == number),
            )
            for number, group in enumerate(groups)
            if number and group.source and group.target and has_own_value(case, group.target)
        ),
        agreement=float((predicted[0] == predicted[1]).mean()),
    )


def group_classes(rules: Sequence[ClassRule], source_classes: Sequence[str]) -> list[ClassGroup]:
    """The finest groups of channels that mean the same in both heads, background first."""
    source = [{channel} for channel in range(len(source_classes))]
    target: list[set[int]] = [set() for _ in source]
    for number, rule in enumerate(rules):
        joined = [n for n, channels in enumerate(source) if channels & set(rule.channels)]
        kept = [n for n in range(len(source)) if n not in joined]
        union = set().union(*(source[n] for n in joined))
        numbers = {number}.union(*(target[n] for n in joined))
        source = [*(source[n] for n in kept), union]
        target = [*(target[n] for n in kept), numbers]
    groups = [
        ClassGroup(_name(a, b, rules, source_classes), tuple(sorted(a)), tuple(sorted(b)))
        for a, b in zip(source, target, strict=True)
    ]
    return sorted(groups, key=lambda group: (0 not in group.target, group.source, group.target))


def predict_groups(
    predictor: ScanModel, case: Case, channels: Sequence[Sequence[int]]
) -> tuple[npt.NDArray[np.int64], Volume]:
    """The group with the largest summed probability, (X, Y, Z), and the scan's first channel.

    Args:
        predictor: the network.
        case: a scan.
        channels: of each group, in the network's head.
    """
    probabilities, scan = predictor.predict_probabilities(case.images)
    sums = torch.stack([probabilities[list(own)].sum(dim=0) for own in channels])
    return np.asarray(sums.argmax(dim=0).cpu().numpy(), dtype=np.int64), scan


def group_truth(case: Case, channels: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """The group of each voxel's label, (X, Y, Z); -1 where the label leaves it open.

    Args:
        case: an annotated scan.
        channels: of each group, in the head whose classes the case is annotated in.
    """
    group_of_row = []
    for allowed in case.protocol.matrix:
        hits = {n for n, own in enumerate(channels) if allowed[list(own)].any()}
        group_of_row.append(hits.pop() if len(hits) == 1 else -1)
    label = on_grid_of(read_volume(case.images[0]), read_volume(case.label))
    rows = to_label_rows(label, case.protocol)
    return np.array(group_of_row, dtype=np.int64)[rows]


def has_own_value(case: Case, channels: Sequence[int]) -> bool:
    """Whether some label value stands for these channels' classes and for nothing else."""
    others = np.ones(len(case.protocol.space), dtype=bool)
    others[list(channels)] = False
    return bool((~case.protocol.matrix[:, others].any(axis=1)).any())


# -------------------------------------------------------------------- internals
def _name(
    source: set[int], target: set[int], rules: Sequence[ClassRule], classes: Sequence[str]
) -> str:
    if 0 in target:
        return BACKGROUND
    if source:
        return " + ".join(classes[channel] for channel in sorted(source))
    return "fresh " + rules[min(target)].target


def _dice(predicted: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> float:
    total = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / total if total else float("nan")


def _percent(share: float) -> str:
    # 99.999 % must not read as all of them.
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"
