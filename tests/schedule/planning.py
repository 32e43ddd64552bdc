"""Plans for a network of three levels, without a network."""

from dataclasses import dataclass

from hsf_finetune.config.settings import FinetuningSettings, LightningSettings, ModelSettings
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.schedule.strategies import plan


@dataclass(frozen=True)
class Named:
    name: str


@dataclass(frozen=True)
class ThreeLevels:
    encoders: tuple[Named, ...] = (Named("encoder1"), Named("encoder2"), Named("encoder3"))
    bottleneck: Named = Named("bottleneck")
    decoders: tuple[Named, ...] = (Named("decoder3"), Named("decoder2"), Named("decoder1"))
    head: Named = Named("head")


def planned(epochs: int | None = None, **finetuning: object) -> Schedule:
    """The schedule of these `finetuning` settings at a rate of 1e-3, the head's too."""
    return plan(
        ThreeLevels(),
        FinetuningSettings.model_validate({"lr_factors": {}, **finetuning}),
        ModelSettings(lr=1e-3),
        LightningSettings(max_epochs=epochs),
    )
