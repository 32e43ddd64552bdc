"""The embedded default: a source model for the phantom cohort, trained once and kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hsf_finetune.config.settings import (
    AugmentationSettings,
    DatasetSettings,
    DatasetsSettings,
    FinetuningSettings,
    LightningSettings,
    PatternSettings,
    Settings,
    WeightsSettings,
)
from hsf_finetune.data.phantom.write_phantoms import is_phantom
from hsf_finetune.system.atomic_files import cache_folder

SOURCE_LABELS = {1: "DG", 2: "CA1", 3: "CA2", 4: "CA3", 5: "SUB"}
"""The source protocol: it draws the whole subicular complex as one class."""

DERIVED_CLASSES = {"PRESUB": "SUB", "PARASUB": "SUB"}
"""Classes of the target protocol that the source draws as part of another."""

SOURCE_EPOCHS = 24

_OPTIMISATION = {
    "lr",
    "weight_decay",
    "loss",
    "batch_dice",
    "class_weights",
    "use_forgiving_loss",
    "labels_names",
}
"""Settings of `models` that say how, or to tell which classes, and not what is trained."""


_OF_THE_MACHINE: dict[str, Any] = {
    "logger": True,
    "datasets": {"main_path", "output_path", "num_workers", "pin_memory", "cache", "cache_dir"},
    "lightning": {"accelerator", "threads"},
}
"""Settings that do not change what the source model becomes."""


def phantom_source_settings(settings: Settings) -> Settings:
    """The settings that train the source model: six classes, T1-like, from scratch.

    Its folder is named after all that makes it what it is: the network of the run that asks
    for it, and the recipe.

    Args:
        settings: of that run.
    """
    given = settings.datasets
    cohort = DatasetSettings(
        path="source_T1w",
        patterns={
            "hemispheres": PatternSettings(mri="sub-*/*_T1w.nii.gz", label="sub-*/*_dseg.nii.gz")
        },
        labels_names=SOURCE_LABELS,
    )
    source = Settings(
        task="train",
        name="demo_source",
        datasets=DatasetsSettings(
            main_path=str(cache_folder() / "phantom"),
            output_path=given.output_path,
            generate="phantom",
            datasets={"phantom_source": cohort},
            patch_vox=[32, 48, 32],
            train_ratio=0.85,
            fold=None,
            num_workers=given.num_workers,
            pin_memory=given.pin_memory,
            cache=given.cache,
            cache_dir=given.cache_dir,
        ),
        models=type(settings.models)(**settings.models.model_dump(exclude=_OPTIMISATION)),
        weights=WeightsSettings(pretrained="none"),
        finetuning=FinetuningSettings(strategy="full", lr_factors={"head": 1.0}),
        augmentation=AugmentationSettings(),
        lightning=LightningSettings(
            max_epochs=SOURCE_EPOCHS,
            accelerator=settings.lightning.accelerator,
            threads=settings.lightning.threads,
        ),
        logger=settings.logger,
    )
    recipe = json.dumps(source.model_dump(mode="json", exclude=_OF_THE_MACHINE), sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    where = str(cache_folder() / "demo" / digest)
    return source.model_copy(update={"run_dir": where, "quality": "off"})


def starts_from_phantom_source(settings: Settings) -> bool:
    """Whether a run starts from the phantom source model: by name, or on phantoms by default."""
    name = settings.weights.pretrained
    if name is None:
        return is_phantom(Path(settings.datasets.main_path).expanduser())
    return name == "demo"


def phantom_source_folder(settings: Settings) -> Path:
    """The run folder of the phantom source model that a run starts from."""
    return Path(str(phantom_source_settings(settings).run_dir))
