"""Schedules of a network with three levels."""

from hsf_finetune.config.settings import FinetuningSettings, LightningSettings, ModelSettings
from hsf_finetune.schedule.blocks import BlockNames
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.schedule.strategies import plan_schedule

THREE_LEVELS = BlockNames(
    encoders=("encoder1", "encoder2", "encoder3"),
    bottleneck="bottleneck",
    decoders=("decoder3", "decoder2", "decoder1"),
    head="head",
)


def planned(epochs: int | None = None, **finetuning: object) -> Schedule:
    """The schedule of these `finetuning` settings at a rate of 1e-3, the head's too."""
    return plan_schedule(
        THREE_LEVELS,
        FinetuningSettings.model_validate({"lr_factors": {}, **finetuning}),
        ModelSettings(lr=1e-3),
        LightningSettings(max_epochs=epochs),
    )
