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
    SelftrainSettings,
    StageSettings,
)
from hsf_finetune.config.settings.library_networks import (
    BasicUNetSettings,
    DynUNetSettings,
    MedNeXtSettings,
    MonaiUNetSettings,
    ResNetUNetSettings,
    SegResNetDSSettings,
    SegResNetSettings,
    SwinUNETRSettings,
    UNETRSettings,
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
from hsf_finetune.config.settings.published_networks import (
    AnatomixSettings,
    NnUNetSettings,
    PrimusSettings,
    RSUNetSettings,
    STUNetSettings,
    SuPreMUNetSettings,
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
    "AnatomixSettings",
    "AugmentationSettings",
    "BasicUNetSettings",
    "DatasetSettings",
    "DatasetsSettings",
    "DynUNetSettings",
    "FinetuningSettings",
    "LightningSettings",
    "LoggerSettings",
    "MedNeXtSettings",
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
    "PrimusSettings",
    "RSUNetSettings",
    "ResNetUNetSettings",
    "STUNetSettings",
    "SegResNetDSSettings",
    "SegResNetSettings",
    "SelftrainSettings",
    "Settings",
    "Size",
    "StageSettings",
    "SuPreMUNetSettings",
    "SwinUNETRSettings",
    "Text",
    "UNETRSettings",
    "UNetSettings",
    "WeightsSettings",
    "Whole",
    "dotted",
    "move_to_weights",
]
