"""What the new head makes of the source model's classes, beside the head it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.checks import label_rows
from hsf_finetune.data.volumes.read_volume import read_volume
from hsf_finetune.inference.predictor import ModelCard, Predictor
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.weights.transfer.rules import ChannelRule


@dataclass(frozen=True)
class Group:
    """Classes of two heads that can only be compared together.

    Args:
        name: of the classes of the source.
        there: their channels in the source's head; empty for classes that are fresh.
        here: their channels in the new head; empty for classes that were dropped.
    """

    name: str
    there: tuple[int, ...]
    here: tuple[int, ...]


@dataclass(frozen=True)
class SmokeRow:
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
class Smoke:
    """The source model with its own head and with the new one, on one case.

    Args:
        case: its name.
        rows: what can be compared.
        agreement: share of voxels for which both say the same.
    """

    case: str
    rows: tuple[SmokeRow, ...]
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


def smoke(
    source: Anatomy,
    target: Anatomy,
    rules: Sequence[ChannelRule],
    source_classes: Sequence[str],
    card: ModelCard,
    case: Case,
    device: torch.device,
) -> Smoke | None:
    """Scores a transfer on one case, before any training.

    Both networks predict the case; classes that one head tells apart and the other does
    not are taken together (their probabilities summed) in prediction and truth. Where
    heads were taken over exactly, both columns are the same.

    Args:
        source: the checkpoint's network with its own head.
        target: the network after the transfer.
        rules: how its head was made.
        source_classes: class of each channel of the source.
        card: of the target.
        case: an annotated scan.
        device: where to run both.

    Returns:
        The comparison; None where the new head has nothing of the old one.
    """
    groups = comparable(rules, source_classes)
    if not any(group.there and group.here for group in groups[1:]):
        return None
    heads = (
        (source, tuple(source_classes), [group.there for group in groups]),
        (target, card.classes, [group.here for group in groups]),
    )
    predicted = [
        _group_of_voxels(Predictor(anatomy, _renamed(card, names), device), case, channels)
        for anatomy, names, channels in heads
    ]
    truth = group_truth(case, heads[1][2])
    before, after = (np.where(truth >= 0, volume, -1) for volume in predicted)
    return Smoke(
        case=case.name,
        rows=tuple(
            SmokeRow(
                group.name,
                tuple(card.classes[channel] for channel in group.here),
                _dice(before == place, truth == place),
                _dice(after == place, truth == place),
            )
            for place, group in enumerate(groups)
            if place and group.there and group.here and is_drawn(case, group.here)
        ),
        agreement=float((predicted[0] == predicted[1]).mean()),
    )


def comparable(rules: Sequence[ChannelRule], source_classes: Sequence[str]) -> list[Group]:
    """The finest groups of channels that mean the same in both heads, background first."""
    there = [{channel} for channel in range(len(source_classes))]
    here: list[set[int]] = [set() for _ in there]
    for place, rule in enumerate(rules):
        joined = [n for n, channels in enumerate(there) if channels & set(rule.channels)]
        channels = set().union(*(there[n] for n in joined))
        places = {place}.union(*(here[n] for n in joined))
        kept = [n for n in range(len(there)) if n not in joined]
        there = [*(there[n] for n in kept), channels]
        here = [*(here[n] for n in kept), places]
    groups = [
        Group(_name(a, b, rules, source_classes), tuple(sorted(a)), tuple(sorted(b)))
        for a, b in zip(there, here, strict=True)
    ]
    return sorted(groups, key=lambda group: (0 not in group.here, group.there, group.here))


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
    rows = label_rows(read_volume(case.label), case.protocol)
    return np.array(group_of_row, dtype=np.int64)[rows]


def is_drawn(case: Case, channels: Sequence[int]) -> bool:
    """Whether some label value stands for these channels' classes and for nothing else."""
    others = np.ones(len(case.protocol.space), dtype=bool)
    others[list(channels)] = False
    return bool((~case.protocol.matrix[:, others].any(axis=1)).any())


def _name(
    there: set[int], here: set[int], rules: Sequence[ChannelRule], classes: Sequence[str]
) -> str:
    if 0 in here:
        return BACKGROUND
    if there:
        return " + ".join(classes[channel] for channel in sorted(there))
    return "fresh " + rules[min(here)].target


def _renamed(card: ModelCard, names: tuple[str, ...]) -> ModelCard:
    return replace(card, classes=names, label_values={name: n for n, name in enumerate(names)})


def _group_of_voxels(
    predictor: Predictor, case: Case, channels: Sequence[Sequence[int]]
) -> npt.NDArray[np.int64]:
    """The group with the largest summed probability, (X, Y, Z)."""
    probabilities, _ = predictor.predict_probabilities(case.images)
    sums = torch.stack([probabilities[list(own)].sum(dim=0) for own in channels])
    return np.asarray(sums.argmax(dim=0).cpu().numpy(), dtype=np.int64)


def _dice(predicted: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> float:
    total = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / total if total else float("nan")


def _percent(share: float) -> str:
    # 99.999 % must not read as all of them.
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"
