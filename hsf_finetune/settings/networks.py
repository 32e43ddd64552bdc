"""Which network: one of all settings of the `models` group."""

from typing import Annotated, Union

from pydantic import Field

from hsf_finetune.settings.models import ARUNetSettings, PretrainedSettings, UNetSettings
from hsf_finetune.settings.other_models import (
    BasicUNetSettings,
    DynUNetSettings,
    MonaiUNetSettings,
    NnUNetSettings,
    SegResNetSettings,
    SwinUNETRSettings,
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
