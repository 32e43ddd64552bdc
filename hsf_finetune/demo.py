"""The embedded default: a source model for the phantom cohort, trained once and kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hsf_finetune.data.phantom import is_phantom
from hsf_finetune.files import cache_folder
from hsf_finetune.settings import (
    AugmentationSettings,
    DatasetSettings,
    FinetuningSettings,
    LightningSettings,
    PatternSettings,
    Settings,
)

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


def demo_run(settings: Settings) -> Path:
    """Folder of the run that trains the source model for this network."""
    network = settings.models.model_dump(mode="json", exclude=_OPTIMISATION)
    key = json.dumps([SOURCE_EPOCHS, network], sort_keys=True)
    return cache_folder() / "demo" / hashlib.sha256(key.encode()).hexdigest()[:12]


def phantom_folder(settings: Settings) -> Path:
    """Where the phantom cohort lies: the run's own data, else the cache."""
    main = Path(settings.datasets.main_path).expanduser()
    return main if is_phantom(main) else cache_folder() / "phantom"


def source_settings(settings: Settings) -> Settings:
    """The settings that train the source model: six classes, T1-like, from scratch."""
    cohort = DatasetSettings(
        path="source_T1w",
        patterns={
            "hemispheres": PatternSettings(mri="sub-*/*_T1w.nii.gz", label="sub-*/*_dseg.nii.gz")
        },
        labels_names=SOURCE_LABELS,
    )
    datasets = settings.datasets.model_copy(
        update={
            "main_path": str(phantom_folder(settings)),
            "generate": "phantom",
            "datasets": {"phantom_source": cohort},
            "batch_size": 2,
            "patch_vox": [32, 48, 32],
            "train_ratio": 0.85,
            "train_val_test_idx": None,
            "split_file": None,
            "fold": None,
            "train_on_all": False,
            "k_sample": None,
            "replace": False,
            "target_spacing_mm": None,
            "retention": {},
        }
    )
    return settings.model_copy(
        update={
            "task": "train",
            "name": "demo_source",
            "run_dir": str(demo_run(settings)),
            "resume": None,
            "datasets": datasets,
            "models": type(settings.models)(**settings.models.model_dump(exclude=_OPTIMISATION)),
            "finetuning": FinetuningSettings(
                strategy="full", pretrained="none", lr_factors={"head": 1.0}
            ),
            "augmentation": AugmentationSettings(),
            "lightning": LightningSettings(
                max_epochs=SOURCE_EPOCHS,
                accelerator=settings.lightning.accelerator,
                threads=settings.lightning.threads,
            ),
        }
    )
