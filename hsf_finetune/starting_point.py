"""What a run starts from: the network its data ask for, and the weights it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from hsf_finetune import demo
from hsf_finetune.data.cases import Cohort
from hsf_finetune.data.phantom import is_phantom
from hsf_finetune.errors import ConfigError
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, class_axes
from hsf_finetune.settings import Settings
from hsf_finetune.weights.receipt import Receipt
from hsf_finetune.weights.sources import locate, read_checkpoint
from hsf_finetune.weights.transfer import transfer


def build_network(settings: Settings, cohort: Cohort) -> Anatomy:
    """A freshly initialised network for the cohort's channels and classes.

    Raises:
        ConfigError: `out_channels` or `in_channels` contradicts the cohort.
    """
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
    torch.manual_seed(settings.seed)
    return build(settings.models, cohort.channels, len(classes))


def load_weights(
    settings: Settings, anatomy: Anatomy, cohort: Cohort, demo_source: Callable[[], Path]
) -> Receipt | None:
    """Loads the pretrained weights into the network; None where there are to be none.

    Args:
        settings: of the run.
        anatomy: the network.
        cohort: the cases, for their classes and channels.
        demo_source: makes the phantom source model where it is asked for, and says where
            it is.

    Raises:
        ConfigError: no weights are given.
        WeightsError: they cannot be read or do not fit.
    """
    tuning = settings.finetuning
    derive_from = dict(tuning.derive_from or {})
    name = tuning.pretrained
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
        path = locate(demo_source())
        classes = cohort.classes.names
        derive_from = derive_from or {
            new: old for new, old in demo.DERIVED_CLASSES.items() if new in classes
        }
    else:
        assert name is not None
        path = locate(name, tuning.checkpoint)
    return transfer(
        anatomy,
        read_checkpoint(path, tuning.use_ema),
        cohort.classes.names,
        derive_from,
        tuning.min_loaded,
        class_axes(settings.models, cohort.channels, len(cohort.classes)),
        tuning.source_classes,
    )
