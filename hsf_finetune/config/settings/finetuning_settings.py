"""The `finetuning` group: which part of the network trains when, and at which rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from hsf_finetune.config.settings.base_settings import (
    Group,
    Positive,
    Probability,
    Whole,
    as_switch,
)

_OF_SCHEDULES = {
    "lr_power": ("poly",),
    "lr_drop_epochs": ("step", "plateau"),
    "lr_drop_factor": ("step", "plateau"),
}
"""Setting of the rates -> the `lr_schedule` values that have it."""


class StageSettings(Group):
    """One stage of `finetuning=staged`."""

    epochs: Whole
    """Length, or greatest length where there is a patience."""
    patience_epochs: Whole | None = None
    """End the stage after so many epochs without a better validation Dice."""
    freeze_level: Literal[0, 1, 2] | None = None
    """2 trains the head, 1 decoder and head, 0 everything."""
    blocks: Annotated[list[str], Field(min_length=1)] | None = None
    """What trains, by name, in place of `freeze_level`."""
    lr: Positive | None = None
    """Peak learning rate; None is `models.lr`."""
    warmup: Probability | None = None
    """Share of the stage in which the rate rises; None is `finetuning.warmup`."""
    augmentation: str | None = None
    """Preset of the `augmentation` group; None is that of the run."""
    augmentation_strength: Annotated[float, Field(ge=0)] = 1.0
    """What the probability of each random change is multiplied by."""
    head_boost: Positive | None = None
    """Factor of the head's rate in the first epochs of the stage."""
    head_boost_epochs: Whole = 2
    """For how many epochs."""
    start_from: Literal["best", "last"] = "best"
    """Weights of the stage before: of its best epoch, or of its last."""

    @model_validator(mode="after")
    def _one_way_to_say_what_trains(self) -> StageSettings:
        if (self.freeze_level is None) == (self.blocks is None):
            raise ValueError("give either freeze_level or blocks")
        return self


class SelftrainSettings(Group):
    """Self-training: a teacher labels the unlabelled scans, and a student learns from them."""

    teacher: list[str] = []
    """Models that label the scans, by the mean of their probabilities: runs, or whatever `predict`
    takes; none trains one on the labelled cases first."""
    rounds: Whole = 1
    """How often: the student of one round is the teacher of the next."""
    plausible: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """A voxel may be each class of at least this probability: its label is the set of them."""
    labelled_share: Annotated[float, Field(gt=0, lt=1)] = 0.34
    """Share of the draws that are of cases with true labels."""
    views: Annotated[Literal["off", "shift", "flip", "all"], BeforeValidator(as_switch)] = "off"
    """The views of a scan whose probabilities the teacher averages, as `predict --tta`."""
    start: Literal["source", "teacher"] = "source"
    """Weights that a student starts from."""
    max_epochs: Whole | None = None
    """Epochs of a student; None is as many as the teacher has."""


class FinetuningSettings(Group):
    """Which part of the network trains when, and at which rate."""

    strategy: Annotated[
        Literal[
            "full",
            "hsf",
            "linear",
            "gradual",
            "progressive",
            "staged",
            "lpft",
            "encoder_first",
        ]
        | None,
        BeforeValidator(lambda name: "hsf" if name == "gradual_unfreezing" else name),
    ] = None
    """Which part trains when; None is that of `chosen_strategy`. `gradual_unfreezing` is
    another name of `hsf`."""
    mode: Literal["encoder", "decoder", "both"] | None = None
    """hsf: which side of the network unfreezes, from which end; None is decoder."""
    depth: Annotated[int, Field(ge=-1)] | None = None
    """hsf: blocks that unfreeze beside the head; None or -1 is every one of the mode."""
    unfreeze_frequency: Whole | None = None
    """hsf: epochs from one block to the next; None is 4."""
    out_channels: Annotated[int, Field(ge=2)] | None = None
    """Output channels, background included; None follows from the labels."""
    lr_factors: dict[str, Positive] = {"head": 10.0}
    """Block (or `encoder`, `decoder`, `backbone`, `norms`) -> factor of its learning rate."""
    llrd_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Layer-wise decay: factor of the rate for each block farther from the head; None is 0.9
    where everything trains from the start (full), and 1 elsewhere."""
    warmup: Probability = 0.1
    """Share of a block's training time in which its rate rises."""
    final_lr_factor: Probability = 0.0
    """Lowest rate after the warm-up, as a share of the peak: where a cosine or polynomial ends."""
    warmup_epochs: Annotated[int, Field(ge=0)] | None = None
    """How many epochs a block's rate rises, in place of the share `warmup`."""
    lr_schedule: Literal["cosine", "poly", "step", "plateau"] = "cosine"
    """How a rate falls after its warm-up: along a cosine or a polynomial; every
    `lr_drop_epochs`; or once validation Dice has not improved for as many."""
    lr_power: Positive | None = None
    """poly: its exponent; None is nnU-Net's 0.9."""
    lr_drop_epochs: Whole | None = None
    """step: epochs from one drop to the next; plateau: without a better Dice. None is 10."""
    lr_drop_factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """step, plateau: what a drop multiplies the rate by; None is 0.1."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.99
    """Decay of the averaged weights; None trains without."""
    early_stopping_epochs: Whole | None = None
    """Epochs without a better validation Dice that end the last stage, and the run."""
    budget: Literal["auto", "validation", "fixed"] = "auto"
    """Whether validation picks the best epoch and ends stages, or every stage has its whole
    length and the last weights are taken; `auto` is fixed below `datasets.few_subjects`."""
    linear_probe_epochs: Whole = 10
    """linear, lpft: most epochs of the head alone."""
    gradual_patience: Whole = 3
    """linear, gradual: epochs without a better validation Dice that end a stage."""
    gradual_top_blocks: Whole = 2
    """gradual: blocks next to the head that train with it in the second stage."""
    freeze_backbone: bool = True
    """progressive: whether encoder and bottleneck start frozen."""
    unfreeze_backbone_at_epoch: Annotated[int, Field(ge=-1)] = -1
    """progressive: epoch in which they unfreeze, whatever `freeze_backbone` is; -1 never."""
    lpft_lr_factor: Positive = 0.3
    """lpft: the rate of everything as a share of the head's before."""
    encoder_blocks: Whole = 2
    """encoder_first: how many encoder blocks train, counted from the input."""
    stages: list[StageSettings] = []
    """staged: what trains, one stage after the other."""
    selftrain: SelftrainSettings | None = None
    """Learn from the scans of `datasets.unlabelled` as well; None leaves them out."""
    keep_old: Literal["distil", "everywhere"] | None = None
    """The source model teaches its own classes: where labels leave them open, or everywhere."""
    keep_old_strength: Positive = 10.0
    """How strongly: factor of that term of the loss."""
    regularise: Literal["l2sp"] | None = None
    """Pull the weights towards where they started, in place of towards 0."""
    l2sp_strength: Annotated[float, Field(ge=0)] = 0.1
    """How strongly: the share of the distance that a step at rate 1 takes back."""
    divergence_share: Positive | None = 0.2
    """Warn if the validation loss of the first epochs exceeds the pretrained model's by more."""

    @property
    def chosen_strategy(self) -> str:
        """The strategy: HSF's gradual unfreezing where one of its settings is given, else full."""
        return self.strategy or ("hsf" if self._hsf_settings() else "full")

    def _hsf_settings(self) -> list[str]:
        """Which settings of HSF's gradual unfreezing are given."""
        names = ("mode", "depth", "unfreeze_frequency")
        return [name for name in names if getattr(self, name) is not None]

    @model_validator(mode="after")
    def _no_setting_is_ignored(self) -> FinetuningSettings:
        given = self._hsf_settings()
        if given and self.chosen_strategy != "hsf":
            raise ValueError(
                f"{' and '.join(given)} would be ignored: only HSF's gradual unfreezing "
                f"(finetuning=hsf) has such settings, and this is strategy '{self.strategy}'"
            )
        for name, schedules in _OF_SCHEDULES.items():
            if getattr(self, name) is not None and self.lr_schedule not in schedules:
                raise ValueError(
                    f"{name} would be ignored: only finetuning.lr_schedule="
                    f"{' and '.join(schedules)} has it, and this is '{self.lr_schedule}'"
                )
        return self
