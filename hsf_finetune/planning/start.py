"""What a run starts from: the network its data ask for, and the weights it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from hsf_finetune.config.named_weights import check_network
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.planning.phantom_source import (
    DERIVED_CLASSES,
    phantom_source_folder,
    starts_from_phantom_source,
)
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import has_ended
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.given_weights import PretrainedWeights, read_given_weights
from hsf_finetune.weights.transfer.own_head import transfer_given
from hsf_finetune.weights.transfer.receipt import Receipt

if TYPE_CHECKING:
    from hsf_finetune.weights.sources.http_file import Progress


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


def require_weights(settings: Settings) -> None:
    """Refuses settings that name no weights, or those of a phantom model that does not exist.

    Raises:
        ConfigError: with the ways to give some.
    """
    if starts_from_phantom_source(settings):
        if not has_ended(phantom_source_folder(settings)):
            raise ConfigError(
                "the phantom source model does not exist yet",
                fix="python finetune.py trains it once, in a few minutes;\n"
                "or finetuning.pretrained=PATH for weights of your own",
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
    if tuning.pretrained == "none":
        return None
    require_weights(settings)
    if not starts_from_phantom_source(settings):
        return read_given_weights(settings, progress, say)
    folder = {"pretrained": str(phantom_source_folder(settings)), "checkpoint": "best"}
    phantom = settings.model_copy(update={"weights": tuning.model_copy(update=folder)})
    source = read_given_weights(phantom, progress, say)
    if source.derive_from or (tuning.head, tuning.load) != ("transfer", "all"):
        return source
    known = DERIVED_CLASSES.items()
    derive_from = {new: old for new, old in known if new in cohort.classes.names}
    return replace(source, derive_from=derive_from)


def read_source_checkpoint(settings: Settings, cohort: Cohort) -> Checkpoint | None:
    """The checkpoint that the settings ask for, without printing its origin."""
    found = find_weights(settings, cohort)
    return found.checkpoint if found else None


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
    head = (cohort.classes.names, settings.weights.head)
    receipt = transfer_given(settings, anatomy, cohort.channels, named, head)
    return TransferResult(source, replace(receipt, origin={**receipt.origin, **source.origin}))
