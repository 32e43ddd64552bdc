"""What a run starts from: the network its data ask for, and the weights it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.config.named_weights import check_network
from hsf_finetune.config.settings import PretrainedSettings, Settings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, channel_axes, class_axes
from hsf_finetune.networks.pretrained_network import resolve_network
from hsf_finetune.planning.phantom_source import (
    DERIVED_CLASSES,
    phantom_source_folder,
    starts_from_phantom_source,
)
from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import has_ended
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.http_file import Progress
from hsf_finetune.weights.sources.infer_network import unrecognised_network_error
from hsf_finetune.weights.sources.read_source import SourceOptions, find_single_file, read_source
from hsf_finetune.weights.sources.remote import fetch_weights
from hsf_finetune.weights.transfer.class_rules import Derivations, HeadPolicy
from hsf_finetune.weights.transfer.input_rules import InputRequest
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.receipt import Receipt
from hsf_finetune.weights.transfer.transfer_weights import transfer


def build_network(settings: Settings, cohort: Cohort) -> Anatomy:
    """A freshly initialised network for the cohort's channels and classes.

    Raises:
        ConfigError: `out_channels`, `in_channels` or `channel_names` contradicts the cohort,
            or the weights are named ones of another network.
    """
    weights = settings.weights
    if weights.named:
        check_network(str(weights.pretrained), weights.named, settings.models)
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
class PretrainedWeights:
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


def require_weights(settings: Settings) -> None:
    """Refuses settings that name no weights, or those of a phantom model that does not exist.

    Raises:
        ConfigError: with the ways to give some.
    """
    if starts_from_phantom_source(settings):
        if not has_ended(phantom_source_folder(settings)):
            raise ConfigError(
                "the phantom source model does not exist yet",
                fix="python finetune.py trains it once, in a few minutes",
            )
    elif settings.weights.pretrained is None:
        raise ConfigError(
            "no pretrained weights are given",
            fix="finetuning.pretrained=PATH with a checkpoint or a run folder (python train.py "
            "makes one);\nfinetuning.pretrained=demo for the phantom model, which knows phantoms "
            "only;\nfinetuning.pretrained=none to start from random weights",
        )


def find_weights(
    settings: Settings,
    cohort: Cohort,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> PretrainedWeights | None:
    """The pretrained weights that the settings ask for; None where `pretrained` is none.

    Args:
        settings: of the run.
        cohort: the cases, for their classes.
        progress: called with the bytes of a download so far, and in all.
        say: called with each line about the origin of the weights.

    Raises:
        ConfigError: no weights are given, or what the settings say of them is not so.
        WeightsError: they cannot be fetched or read.
    """
    tuning = settings.weights
    name, remote = tuning.pretrained, None
    derive_from = dict(tuning.derive_from or {})
    if name == "none":
        return None
    require_weights(settings)
    if starts_from_phantom_source(settings):
        options = SourceOptions(use_ema=tuning.use_ema)
        checkpoint = read_source(phantom_source_folder(settings), options)
        if not derive_from and (tuning.head, tuning.load) == ("transfer", "all"):
            known = DERIVED_CLASSES.items()
            derive_from = {new: old for new, old in known if new in cohort.classes.names}
    else:
        assert name is not None
        remote = fetch_weights(name, tuning.named, tuning.checksum, tuning.offline, progress)
        for line in remote.lines() if remote else ():
            say(line)
        checkpoint = _read(settings, remote.path if remote else Path(name), checked=bool(remote))
        if tuning.named and (not checkpoint.models or "inferred" in checkpoint.origin):
            checkpoint = replace(checkpoint, models=tuning.named.models.model_dump(mode="json"))
    given = tuning.source_classes or (remote.classes if remote else None)
    classes = checkpoint.classes or (tuple(given) if given else None)
    notes = list(checkpoint.origin.get("notes", ()))
    if isinstance(settings.models, PretrainedSettings) and not tuning.named:
        notes += checkpoint.origin.get("inferred", ())
    if tuning.trust:
        notes.append("weights.trust is not needed any more: files are read without running code")
    for note in notes:
        say(f"  {note}")
    return PretrainedWeights(checkpoint, classes, derive_from, remote.to_dict() if remote else {})


def read_source_checkpoint(settings: Settings, cohort: Cohort) -> Checkpoint | None:
    """The checkpoint that the settings ask for, without printing its origin."""
    found = find_weights(settings, cohort)
    return found.checkpoint if found else None


def _read(settings: Settings, path: Path, checked: bool) -> Checkpoint:
    tuning = settings.weights
    if tuning.checksum and not checked:
        file = find_single_file(path, tuning.checkpoint)
        check_file(file, Checksum.parse(tuning.checksum), "correct finetuning.checksum")
    options = SourceOptions(
        tuning.checkpoint,
        tuning.use_ema,
        tuning.key_prefix,
        tuning.source_fold,
        tuning.source_orientation,
    )
    return read_source(path, options)


def with_recorded_network(settings: Settings, recorded: Checkpoint | None) -> Settings:
    """The settings with the network that is built: for `models=pretrained` the recorded one.

    Args:
        settings: of the run.
        recorded: the pretrained weights, or the checkpoint that a run is resumed from.

    Raises:
        ConfigError: `models=pretrained`, and nothing tells which network that is.
    """
    if recorded and not recorded.models and isinstance(settings.models, PretrainedSettings):
        raise unrecognised_network_error(recorded)
    found = (recorded.models, recorded.path) if recorded else (None, None)
    return settings.model_copy(update={"models": resolve_network(settings.models, *found)})


@dataclass(frozen=True)
class TransferResult:
    """Pretrained weights, and how a network took them.

    Args:
        source: the weights.
        receipt: what became of each tensor and channel.
    """

    source: PretrainedWeights
    receipt: Receipt

    @property
    def source_classes(self) -> tuple[str, ...]:
        """The source's classes; where nothing names them, those they are by position."""
        return self.source.classes or tuple(rule.target for rule in self.receipt.channels)


def load_weights(
    settings: Settings, anatomy: Anatomy, cohort: Cohort, source: PretrainedWeights
) -> TransferResult:
    """Loads the pretrained weights into the network; settings are from `with_recorded_network`.

    Raises:
        ConfigError: what the settings say of the weights is not so.
        WeightsError: they do not fit.
    """
    given = settings.weights.source_classes
    named = replace(source, classes=tuple(given) if given else source.classes)
    tuning = settings.weights
    matching = MatchRequest(tuning.match, tuning.key_map, tuning.load, tuning.allow_mismatch)
    head = _HeadChoice(cohort.classes.names, tuning.head)
    receipt = _transfer(settings, anatomy, cohort, named, head, matching)
    return TransferResult(source, replace(receipt, origin={**receipt.origin, **source.origin}))


def build_source_network(settings: Settings, cohort: Cohort, result: TransferResult) -> Anatomy:
    """The source model with its own head: as many classes as it had, all weights loaded."""
    source = replace(result.source, classes=result.source_classes, derive_from={})
    # Neither the order of later random numbers nor the new network may depend on this.
    with torch.random.fork_rng(devices=[]):
        anatomy = build(settings.models, cohort.channels, len(result.source_classes))
    tuning, head = settings.weights, _HeadChoice(result.source_classes, "copy")
    matching = MatchRequest(tuning.match, tuning.key_map, "all", tuning.allow_mismatch)
    _transfer(settings, anatomy, cohort, source, head, matching)
    return anatomy


@dataclass(frozen=True)
class _HeadChoice:
    classes: Sequence[str]
    policy: HeadPolicy


def _transfer(
    settings: Settings,
    anatomy: Anatomy,
    cohort: Cohort,
    source: PretrainedWeights,
    head: _HeadChoice,
    matching: MatchRequest,
) -> Receipt:
    tuning, size = settings.weights, (cohort.channels, len(head.classes))
    axes = class_axes(settings.models, *size)
    head_request = HeadRequest(head.classes, axes, source.classes, source.derive_from, head.policy)
    inputs = InputRequest(
        channel_axes(settings.models, *size),
        settings.datasets.channel_names,
        tuning.source_channels,
        tuning.input_channels,
    )
    checkpoint, least = source.checkpoint, tuning.min_loaded
    return transfer(anatomy, checkpoint, head_request, inputs, matching, least)
