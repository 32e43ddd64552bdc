"""Every setting, typed: one module per group of `conf/`.

The YAML files in `conf/` carry the defaults that users see and a comment above
each key; these classes carry types, bounds and the fallbacks for keys that a
user's own YAML leaves out.
"""

from hsf_finetune.config.settings.all_settings import WRONG_SETTING, Settings, dotted
from hsf_finetune.config.settings.augmentation_settings import AugmentationSettings
from hsf_finetune.config.settings.base_settings import (
    Activation,
    Norm,
    Size,
    Text,
    Whole,
)
from hsf_finetune.config.settings.datasets_settings import (
    DatasetSettings,
    DatasetsSettings,
    PatternSettings,
)
from hsf_finetune.config.settings.engine_settings import LightningSettings, LoggerSettings
from hsf_finetune.config.settings.finetuning_settings import (
    FinetuningSettings,
    StageSettings,
)
from hsf_finetune.config.settings.library_networks import (
    BasicUNetSettings,
    DynUNetSettings,
    MonaiUNetSettings,
    NnUNetSettings,
    SegResNetSettings,
    SwinUNETRSettings,
)
from hsf_finetune.config.settings.models_settings import (
    ARUNetHparams,
    ARUNetSettings,
    ModelSettings,
    PretrainedSettings,
    UNetSettings,
)
from hsf_finetune.config.settings.network_choice import NetworkSettings
from hsf_finetune.config.settings.preprocessing_settings import (
    HSF_PREPROCESSING,
    Preprocessing,
    PreprocessingSettings,
)
from hsf_finetune.config.settings.weights_settings import (
    OTHER_NAMES,
    WEIGHTS_KEYS,
    NamedWeights,
    WeightsSettings,
    move_to_weights,
)

__all__ = [
    "HSF_PREPROCESSING",
    "OTHER_NAMES",
    "WEIGHTS_KEYS",
    "WRONG_SETTING",
    "ARUNetHparams",
    "ARUNetSettings",
    "Activation",
    "AugmentationSettings",
    "BasicUNetSettings",
    "DatasetSettings",
    "DatasetsSettings",
    "DynUNetSettings",
    "FinetuningSettings",
    "LightningSettings",
    "LoggerSettings",
    "ModelSettings",
    "MonaiUNetSettings",
    "NamedWeights",
    "NetworkSettings",
    "NnUNetSettings",
    "Norm",
    "PatternSettings",
    "Preprocessing",
    "PreprocessingSettings",
    "PretrainedSettings",
    "SegResNetSettings",
    "Settings",
    "Size",
    "StageSettings",
    "SwinUNETRSettings",
    "Text",
    "UNetSettings",
    "WeightsSettings",
    "Whole",
    "dotted",
    "move_to_weights",
]
