"""What a run starts from: the network its data ask for, and the weights it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.config.named_weights import check_network
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.data.phantom.write_phantoms import is_phantom
from hsf_finetune.evaluation.head_check import Smoke, smoke
from hsf_finetune.inference.predictor import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, channel_axes, class_axes
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.networks.pretrained_network import resolve
from hsf_finetune.planning.phantom_source import DERIVED_CLASSES
from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.http_file import Progress
from hsf_finetune.weights.sources.locate import locate_file, read_source
from hsf_finetune.weights.sources.remote import locate_remote
from hsf_finetune.weights.transfer.channels import Derivations, HeadPolicy
from hsf_finetune.weights.transfer.inputs import Inputs
from hsf_finetune.weights.transfer.matching import Matching
from hsf_finetune.weights.transfer.receipt import Receipt
from hsf_finetune.weights.transfer.transfer_weights import transfer


def build_network(settings: Settings, cohort: Cohort) -> Anatomy:
    """A freshly initialised network for the cohort's channels and classes.

    Raises:
        ConfigError: `out_channels`, `in_channels` or `channel_names` contradicts the cohort,
            or the weights are named ones of another network.
    """
    if settings.finetuning.named:
        named = settings.finetuning.named
        check_network(str(settings.finetuning.pretrained), named, settings.models)
    classes, wanted = cohort.classes, settings.finetuning.out_channels
    if wanted is not None and wanted != len(classes):
        raise ConfigError(
            f"finetuning.out_channels={wanted} contradicts the labels, which give {len(classes)} "
            "classes (the background counts)",
            found=", ".join(classes.names),
            fix=f"finetuning.out_channels={len(classes)}, or leave it out; or correct labels and "
            "labels_names in the dataset's YAML",
        )
    if settings.models.in_channels not in (None, cohort.channels):
        raise ConfigError(
            f"models.in_channels={settings.models.in_channels} contradicts the data",
            found=f"{cohort.channels} channel(s): one per entry of mri:",
            fix=f"models.in_channels={cohort.channels}, or leave it out",
        )
    names = settings.datasets.channel_names
    if names is not None and (len(names) != cohort.channels or len(set(names)) < len(names)):
        raise ConfigError(
            "datasets.channel_names should have one name, all different, for each input channel",
            found="[" + ", ".join(names) + "]",
            expected=f"{cohort.channels} name(s): one per entry of mri:",
        )
    torch.manual_seed(settings.seed)
    return build(settings.models, cohort.channels, len(classes))


@dataclass(frozen=True)
class Source:
    """Pretrained weights, before a network takes them.

    Args:
        checkpoint: the weights.
        classes: class of each of their output channels; None where nothing says.
        derive_from: new class -> class or classes of the source that it comes out of.
        origin: what else is known of where they are from.
    """

    checkpoint: Checkpoint
    classes: tuple[str, ...] | None
    derive_from: Derivations
    origin: Mapping[str, Any]


def find_source(
    settings: Settings,
    cohort: Cohort,
    phantom_source: Callable[[], Path],
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Source | None:
    """The pretrained weights that the settings ask for; None where there are to be none.

    Args:
        settings: of the run.
        cohort: the cases, for their classes.
        phantom_source: makes the phantom source model where it is asked for, and says where
            it is.
        progress: is told the bytes of a download that are there, and the bytes in all.
        say: is told, line by line, what is known of weights from elsewhere.

    Raises:
        ConfigError: no weights are given, or what the settings say of them is not so.
        WeightsError: they cannot be fetched or read.
    """
    tuning = settings.finetuning
    name, remote = tuning.pretrained, None
    derive_from = dict(tuning.derive_from or {})
    if name == "none":
        return None
    if name is None and not is_phantom(Path(settings.datasets.main_path).expanduser()):
        raise ConfigError(
            "no pretrained weights are given",
            fix="finetuning.pretrained=PATH with a checkpoint or a run folder (python train.py "
            "makes one);\nfinetuning.pretrained=demo for the phantom model, which knows phantoms "
            "only;\nfinetuning.pretrained=none to start from random weights",
        )
    if name in (None, "demo"):
        checkpoint = read_source(phantom_source(), use_ema=tuning.use_ema)
        if not derive_from and tuning.head == "transfer":
            known = DERIVED_CLASSES.items()
            derive_from = {new: old for new, old in known if new in cohort.classes.names}
    else:
        assert name is not None
        remote = locate_remote(name, tuning.named, tuning.checksum, tuning.offline, progress)
        for line in remote.lines() if remote else ():
            say(line)
        checkpoint = _read(settings, remote.path if remote else Path(name), checked=bool(remote))
        if tuning.named and not checkpoint.models:
            checkpoint = replace(checkpoint, models=tuning.named.models.model_dump(mode="json"))
    given = tuning.source_classes or (remote.classes if remote else None)
    classes = checkpoint.classes or (tuple(given) if given else None)
    for note in checkpoint.origin.get("notes", ()):
        say(f"  {note}")
    return Source(checkpoint, classes, derive_from, remote.to_dict() if remote else {})


def _read(settings: Settings, path: Path, checked: bool) -> Checkpoint:
    tuning = settings.finetuning
    if tuning.checksum and not checked:
        file = locate_file(path, tuning.checkpoint)
        check_file(file, Checksum.parse(tuning.checksum), "correct finetuning.checksum")
    return read_source(
        path,
        tuning.checkpoint,
        tuning.use_ema,
        tuning.key_prefix,
        tuning.trust,
        tuning.source_fold,
        tuning.source_orientation,
    )


def with_network(settings: Settings, recorded: Checkpoint | None) -> Settings:
    """The settings with the network that is built: for `models=pretrained` the recorded one.

    Args:
        settings: of the run.
        recorded: the pretrained weights, or the checkpoint that a run goes on from.

    Raises:
        ConfigError: `models=pretrained`, and nothing tells which network that is.
    """
    found = (recorded.models, recorded.path) if recorded else (None, None)
    return settings.model_copy(update={"models": resolve(settings.models, *found)})


@dataclass(frozen=True)
class Start:
    """What a network got to start from.

    Args:
        source: the pretrained weights.
        receipt: what became of each tensor and channel.
    """

    source: Source
    receipt: Receipt


def start_from(settings: Settings, anatomy: Anatomy, cohort: Cohort, source: Source) -> Start:
    """Loads the pretrained weights into the network.

    Args:
        settings: of the run, from `with_network`.
        anatomy: the network.
        cohort: the cases, for their classes and channels.
        source: the weights.

    Raises:
        ConfigError: what the settings say of the weights is not so.
        WeightsError: they do not fit.
    """
    given = settings.finetuning.source_classes or source.classes
    receipt = _into(
        anatomy,
        settings,
        cohort,
        source.checkpoint,
        cohort.classes.names,
        source.derive_from,
        given,
        settings.finetuning.head,
    )
    return Start(source, replace(receipt, origin={**receipt.origin, **source.origin}))


def model_card(
    settings: Settings, cohort: Cohort, anatomy: Anatomy, seen: DataSummary | None = None
) -> ModelCard:
    """What a model says of itself.

    Args:
        settings: of the run that trains it.
        cohort: its cases.
        anatomy: its network.
        seen: a summary of its training data.
    """
    spacing, names = settings.datasets.target_spacing_mm, settings.datasets.channel_names
    return ModelCard(
        classes=cohort.classes.names,
        label_values=cohort.label_values,
        models=settings.models,
        in_channels=cohort.channels,
        target_spacing_mm=tuple(spacing) if spacing else None,
        window_vox=padded_shape(settings.datasets.window_vox, anatomy.divisor),
        channel_names=tuple(names) if names else None,
        data=seen,
    )


def smoke_test(
    settings: Settings,
    cohort: Cohort,
    anatomy: Anatomy,
    start: Start,
    card: ModelCard,
    case: Case,
    device: torch.device,
) -> Smoke | None:
    """Scores the source model with its own head beside the new one, on one case.

    The source's network is built from the same settings and loaded in the same way, but
    with as many classes as it had; so what differs is the head alone.

    Args:
        settings: of the run.
        cohort: the cases, for their channels.
        anatomy: the network after the transfer, before any training.
        start: what it got.
        card: of the network.
        case: an annotated scan.
        device: where to run both.

    Returns:
        The comparison; None where the new head has nothing of the old one.
    """
    rules = start.receipt.channels
    names = start.source.classes or tuple(f"channel {n}" for n in range(len(rules)))
    if not any(rule.channels for rule in rules):
        return None
    source = source_network(settings, cohort, start)
    return smoke(source, anatomy, rules, names, card, case, device)


def source_network(settings: Settings, cohort: Cohort, start: Start) -> Anatomy:
    """The source model with its own head: as many classes as it had, all weights loaded."""
    rules = start.receipt.channels
    names = start.source.classes or tuple(f"channel {n}" for n in range(len(rules)))
    # Neither the order of later random numbers nor the new network may depend on this.
    with torch.random.fork_rng(devices=[]):
        source = build(settings.models, cohort.channels, len(names))
    _into(source, settings, cohort, start.source.checkpoint, names, {}, names, "copy")
    return source


def _into(
    anatomy: Anatomy,
    settings: Settings,
    cohort: Cohort,
    checkpoint: Checkpoint,
    classes: Sequence[str],
    derive_from: Derivations,
    source_classes: Sequence[str] | None,
    head: HeadPolicy,
) -> Receipt:
    tuning, size = settings.finetuning, (cohort.channels, len(classes))
    return transfer(
        anatomy,
        checkpoint,
        classes,
        derive_from,
        tuning.min_loaded,
        class_axes(settings.models, *size),
        source_classes,
        head=head,
        matching=Matching(tuning.match, tuning.key_map),
        inputs=Inputs(
            channel_axes(settings.models, *size),
            settings.datasets.channel_names,
            tuning.source_channels,
            tuning.input_channels,
        ),
    )
