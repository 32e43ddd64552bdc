"""Which network: one of all settings of the `models` group."""

from typing import Annotated, Union

from pydantic import Field

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
    ARUNetSettings,
    PretrainedSettings,
    UNetSettings,
)
from hsf_finetune.config.settings.published_networks import (
    AnatomixSettings,
    NnUNetSettings,
    PrimusSettings,
    RSUNetSettings,
    STUNetSettings,
    SuPreMUNetSettings,
)

NetworkSettings = Annotated[
    Union[  # noqa: UP007
        UNetSettings,
        MonaiUNetSettings,
        BasicUNetSettings,
        DynUNetSettings,
        SegResNetSettings,
        SegResNetDSSettings,
        SwinUNETRSettings,
        UNETRSettings,
        MedNeXtSettings,
        ResNetUNetSettings,
        ARUNetSettings,
        NnUNetSettings,
        STUNetSettings,
        SuPreMUNetSettings,
        AnatomixSettings,
        RSUNetSettings,
        PrimusSettings,
        PretrainedSettings,
    ],
    Field(discriminator="name"),
]
