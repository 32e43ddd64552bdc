"""Which network: one of all settings of the `models` group."""

from typing import Annotated, Union

from pydantic import Field

from hsf_finetune.config.settings.library_networks import (
    BasicUNetSettings,
    DynUNetSettings,
    MonaiUNetSettings,
    NnUNetSettings,
    SegResNetSettings,
    SwinUNETRSettings,
)
from hsf_finetune.config.settings.models_settings import (
    ARUNetSettings,
    PretrainedSettings,
    UNetSettings,
)

NetworkSettings = Annotated[
    Union[  # noqa: UP007
        UNetSettings,
        MonaiUNetSettings,
        BasicUNetSettings,
        DynUNetSettings,
        SegResNetSettings,
        SwinUNETRSettings,
        ARUNetSettings,
        NnUNetSettings,
        PretrainedSettings,
    ],
    Field(discriminator="name"),
]
