"""Every setting, typed: one module per group of `conf/`.

The YAML files in `conf/` carry the defaults that users see and a comment above
each key; these classes carry types, bounds and the fallbacks for keys that a
user's own YAML leaves out.
"""

from hsf_finetune.settings.augmentation import AugmentationSettings
from hsf_finetune.settings.base import (
    Activation,
    Group,
    Norm,
    Positive,
    Probability,
    Size,
    Text,
    Whole,
)
from hsf_finetune.settings.datasets import DatasetSettings, DatasetsSettings, PatternSettings
from hsf_finetune.settings.engine import LightningSettings, LoggerSettings
from hsf_finetune.settings.everything import Settings, dotted
from hsf_finetune.settings.finetuning import (
    OTHER_NAMES,
    FinetuningSettings,
    NamedWeights,
    StageSettings,
)
from hsf_finetune.settings.models import (
    ARUNetHparams,
    ARUNetSettings,
    ModelSettings,
    PretrainedSettings,
    UNetSettings,
)
from hsf_finetune.settings.networks import NetworkSettings
from hsf_finetune.settings.other_models import (
    BasicUNetSettings,
    DynUNetSettings,
    MonaiUNetSettings,
    NnUNetSettings,
    SegResNetSettings,
    SwinUNETRSettings,
)

__all__ = [
    "OTHER_NAMES",
    "ARUNetHparams",
    "ARUNetSettings",
    "Activation",
    "AugmentationSettings",
    "BasicUNetSettings",
    "DatasetSettings",
    "DatasetsSettings",
    "DynUNetSettings",
    "FinetuningSettings",
    "Group",
    "LightningSettings",
    "LoggerSettings",
    "ModelSettings",
    "MonaiUNetSettings",
    "NamedWeights",
    "NetworkSettings",
    "NnUNetSettings",
    "Norm",
    "PatternSettings",
    "Positive",
    "PretrainedSettings",
    "Probability",
    "SegResNetSettings",
    "Settings",
    "Size",
    "StageSettings",
    "SwinUNETRSettings",
    "Text",
    "UNetSettings",
    "Whole",
    "dotted",
]
