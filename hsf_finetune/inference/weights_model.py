"""A model straight from its weights: network, classes and preprocessing as their source says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from hsf_finetune.config.compose import compose
from hsf_finetune.config.named_weights import check_network, with_description
from hsf_finetune.config.settings import Preprocessing, Settings
from hsf_finetune.data.preprocessing.choose_preprocessing import (
    KnownPreprocessing,
    choose_preprocessing,
)
from hsf_finetune.data.preprocessing.describe_preprocessing import describe_preprocessing
from hsf_finetune.inference.model_card import ModelCard, known_origin
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.system import console
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.given_weights import (
    PretrainedWeights,
    read_given_weights,
    with_recorded_network,
)
from hsf_finetune.weights.transfer.own_head import build_with_own_head

_HOW_TO_SAY = "with predict: --set KEY=VALUE; in Python: load_model(..., settings=['KEY=VALUE'])"


def model_of_weights(
    weights: str | Path,
    checkpoint: Literal["best", "last"] = "best",
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Anatomy, ModelCard]:
    """The network of weights as they are, and its description.

    Network, weights and preprocessing are read and built as in a run with `models=pretrained`.

    Args:
        weights: what `finetuning.pretrained` takes: a folder, a file, an address, or a name.
        checkpoint: which one, where the source has several.
        overrides: settings for what the source does not say, as for finetune.py:
            `finetuning.source_classes=[background,DG]`, `preprocessing=hsf`, `models=unet`.
        say: called with each line about the origin of the weights.

    Raises:
        WeightsError: they cannot be read, or do not say their classes or how scans are
            prepared; with how to say it.
        ConfigError: nothing tells the network, or a setting is wrong.
    """
    settings = compose("finetune", ["models=pretrained", *overrides])
    tuning = settings.weights.model_copy(
        update={"pretrained": str(weights), "checkpoint": checkpoint}
    )
    settings = with_description(settings.model_copy(update={"weights": tuning}), None)
    if settings.weights.named:
        check_network(str(weights), settings.weights.named, settings.models)
    with console.progress("fetching weights", in_bytes=True) as tick:
        source = read_given_weights(settings, tick, say)
    anatomy, card = build_untouched(settings, source)
    classes = ", ".join(f"{name} {value}" for name, value in card.label_values.items())
    say(f"  network: {card.models.name}; classes: {classes}")
    say(f"  scans: {_in_words(card.preprocessing)}")
    return anatomy, card


def build_untouched(settings: Settings, source: PretrainedWeights) -> tuple[Anatomy, ModelCard]:
    """The network of weights as they are, and its description.

    Args:
        settings: which network, and what the weights do not say.
        source: the weights.

    Raises:
        WeightsError, ConfigError: as `model_of_weights`.
    """
    found = source.checkpoint
    classes = _classes(source)
    settings = with_recorded_network(settings, found)
    channels = settings.models.in_channels or found.in_channels
    if channels is None:
        raise WeightsError(
            "the weights do not say how many input channels they have",
            file=found.path,
            fix=f"models.in_channels=1 ({_HOW_TO_SAY})",
        )
    anatomy = build_with_own_head(settings, source, classes, channels)
    values = found.origin.get("label_values") or {}
    card = ModelCard(
        classes=classes,
        label_values={name: values.get(name, number) for number, name in enumerate(classes)},
        models=settings.models,
        in_channels=channels,
        preprocessing=_preprocessing(settings, found, channels, anatomy.divisor),
        origin=known_origin({**found.origin, **source.origin}),
        regions=bool(found.origin.get("regions")),
    )
    return anatomy, card


# -------------------------------------------------------------------- internals
def _in_words(preprocessing: Preprocessing) -> str:
    parts = describe_preprocessing(preprocessing).items()
    short = ((name.removesuffix("_vox").removesuffix("_mm"), text) for name, text in parts)
    return "; ".join(f"{name.replace('_', ' ')} {text}" for name, text in short)


def _classes(source: PretrainedWeights) -> tuple[str, ...]:
    """The class of each output; background first."""
    found = source.checkpoint
    classes = source.classes or tuple(found.origin.get("label_values") or ())
    if not classes:
        raise WeightsError(
            "the weights do not say what their classes are, so they cannot predict by themselves",
            file=found.path,
            expected="weights of this package, of nnU-Net, of a MONAI bundle, or named ones",
            fix=f"finetuning.source_classes=[background,DG,CA1] ({_HOW_TO_SAY});\n"
            f"or fine-tune from them first: finetuning.pretrained={found.path}",
        )
    if classes[0] != BACKGROUND or found.origin.get("independent"):
        raise WeightsError(
            "the outputs of the weights are a yes or no each by itself (sigmoid), and nothing says "
            "which of them counts where several are a yes, so they cannot predict by themselves",
            file=found.path,
            found=", ".join(classes),
            expected="weights whose highest output decides, or nnU-Net's with regions_class_order",
            fix=f"fine-tune from them: finetuning.pretrained={found.path}",
        )
    return classes


def _preprocessing(
    settings: Settings, found: Checkpoint, channels: int, divisor: Sequence[int]
) -> Preprocessing:
    """How scans are prepared: as the weights say, but for what the settings say."""
    if settings.preprocessing.rules == "weights" and found.preprocessing is None:
        raise WeightsError(
            "the weights do not say how scans are prepared: axes, voxel size, intensities",
            file=found.path,
            expected="weights of this package, of nnU-Net, of a MONAI bundle, or named ones",
            fix=f"preprocessing=hsf (z-score, voxels as they are), or another of conf/preprocessing, "
            f"and its parts ({_HOW_TO_SAY})",
        )
    known = KnownPreprocessing(found.preprocessing, channel_names=found.channel_names)
    chosen = choose_preprocessing(settings, (), channels, known).for_network(divisor)
    patch = found.preprocessing.patch_vox if found.preprocessing else None
    return chosen.value.model_copy(
        update={"channel_names": found.channel_names, "patch_vox": patch}
    )
