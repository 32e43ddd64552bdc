"""The source model: with its own head, beside the new network, and on its own task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case, Cohort, discover
from hsf_finetune.evaluation.head_check import ClassGroup, HeadCheck, check_head
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.start import TransferResult
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import RunFolder
from hsf_finetune.weights.transfer.own_head import build_with_own_head

if TYPE_CHECKING:
    from hsf_finetune.planning.setup import Setup

CLASS_GROUPS = "retention.json"
"""File of a run: the source's classes, and those that its head and the new one share."""
_TRIED_CASES = 4


@dataclass(frozen=True)
class SourceTask:
    """Cases on which the model is scored before and after, by the source's classes.

    Args:
        cases: annotated in the source's classes.
        classes: of the source, background first.
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...]


def find_source_task(
    settings: Settings,
    cohort: Cohort,
    transfer: TransferResult | None,
    resumed: RunFolder | None,
) -> SourceTask | None:
    """The cases of `datasets.retention`; None where none are given.

    Args:
        settings: of the run.
        cohort: the cases that train, for their channels.
        transfer: the pretrained weights, if any, and what became of them.
        resumed: the run that is resumed, which wrote down the source's classes.

    Raises:
        ConfigError: there is no source model, or none whose classes are known, or the cases
            have another number of channels.
        UserError: the files do not fit their description.
    """
    given = settings.datasets.retention
    if not given:
        return None
    classes = _source_classes(transfer, resumed)
    if classes is None:
        raise ConfigError(
            "datasets.retention needs a source model whose classes are known",
            found=f"finetuning.pretrained={settings.weights.pretrained}",
            fix="name them: 'finetuning.source_classes=[background, ...]', or leave out "
            "datasets.retention",
        )
    names = {"labels_names": list(classes[1:]), "use_forgiving_loss": True}
    found = discover(
        settings.datasets.model_copy(update={"datasets": given}),
        settings.models.model_copy(update=names),
    )
    if found.channels != cohort.channels:
        raise ConfigError(
            "the cases of datasets.retention have another number of input channels",
            found=found.channels,
            expected=cohort.channels,
        )
    return SourceTask(found.cases, classes)


def _source_classes(
    transfer: TransferResult | None, resumed: RunFolder | None
) -> tuple[str, ...] | None:
    if transfer is not None:
        by_position = any(rule.channels for rule in transfer.receipt.channels)
        return transfer.source_classes if by_position else transfer.source.classes
    if resumed is not None and resumed.file(CLASS_GROUPS).exists():
        return read_class_groups(resumed.file(CLASS_GROUPS))[0]
    return None


def read_class_groups(file: Path) -> tuple[tuple[str, ...], list[ClassGroup]]:
    """The source's classes, and those that its head and the new one share, of a run.

    Raises:
        DataError: the file is missing, damaged or incomplete.
    """
    written = read_json(file, {"classes": [str], "groups": [{"name": str}]})
    of_0_1_0 = any("there" in group for group in written["groups"])
    keys = ("there", "here") if of_0_1_0 else ("source", "target")
    read_json(file, {"groups": [{key: [int] for key in keys}]})
    return tuple(written["classes"]), [ClassGroup.from_dict(one) for one in written["groups"]]


def source_predictor(setup: Setup) -> Predictor:
    """The source model of a transfer, with its own head; its classes are numbered from 0."""
    transfer = setup.transfer
    assert transfer is not None
    classes = transfer.source_classes
    values = {name: number for number, name in enumerate(classes)}
    card = replace(setup.card, classes=classes, label_values=values)
    channels = setup.cohort.channels
    network = build_with_own_head(setup.settings, transfer.source, classes, channels)
    return Predictor(network, card, setup.device)


def few_cases(cases: Sequence[Case]) -> list[Case]:
    """Cases on which an untouched model is tried: at most four, of different subjects."""
    by_subject: dict[str, Case] = {}
    for case in cases:
        by_subject.setdefault(case.subject, case)
    return [*by_subject.values()][:_TRIED_CASES]


def check_new_head(setup: Setup, case: Case) -> HeadCheck | None:
    """Scores the source model with its own head beside the new one, on one case.

    The source's network is built from the same settings and loaded in the same way, but
    with as many classes as it had; so what differs is the head alone.

    Args:
        setup: of the run, before any training; it has a transfer.
        case: an annotated scan.

    Returns:
        The comparison; None where the new head has nothing of the old one.
    """
    transfer = setup.transfer
    assert transfer is not None
    if not any(rule.channels for rule in transfer.receipt.channels):
        return None
    target = Predictor(setup.anatomy, setup.card, setup.device)
    return check_head(source_predictor(setup), target, transfer.receipt.channels, case)
