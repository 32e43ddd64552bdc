"""The `models` group: optimisation and loss, and our own networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hsf_finetune.config.settings.base_settings import (
    Group,
    Norm,
    Positive,
    Probability,
    Size,
    Text,
    Whole,
)


class ModelSettings(Group):
    """What all networks share: optimisation and loss."""

    lr: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """AdamW's decoupled weight decay."""
    loss: Literal["dice_ce", "dice_focal", "dice", "ce", "focal", "tversky", "focal_tversky"] = (
        "dice_ce"
    )
    """Dice + cross-entropy, one of the others, or HSF's focal Tversky."""
    batch_dice: bool = False
    """Dice and Tversky over the voxels of the whole batch instead of case by case."""
    class_weights: dict[Text, Positive] | None = None
    """Class -> its weight in the loss; the others have 1, and a set its classes' mean."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the cross-entropy's target that is spread evenly over all classes."""
    use_forgiving_loss: bool = False
    """Whether label values may stand for several classes."""
    labels_names: Annotated[list[Text], Field(min_length=1)] | None = None
    """The model's classes in the order of its outputs; None is the datasets' finest ones."""
    in_channels: Whole | None = None
    """Input channels; None follows from the dataset's patterns."""

    @model_validator(mode="after")
    def _smoothing_has_a_cross_entropy(self) -> ModelSettings:
        if self.label_smoothing and self.loss not in ("ce", "dice_ce"):
            raise ValueError(
                f"label_smoothing would be ignored: loss '{self.loss}' has no cross-entropy; "
                "choose loss dice_ce or ce"
            )
        return self


class UNetSettings(ModelSettings):
    """MONAI's residual UNet as a trunk that ends in features, and a 1x1x1 head."""

    name: Literal["unet"] = "unet"
    channels: Annotated[list[Whole], Field(min_length=2)] = [16, 32, 64, 128]
    """Channels per level, from the first to the bottleneck."""
    strides: list[Whole] = [2, 2, 2]
    """Halving between levels; one fewer than `channels`."""
    features: Whole = 16
    """Channels at full resolution that the head reads."""
    num_res_units: Annotated[int, Field(ge=0)] = 2
    """Convolutions per residual block; 0 is a plain UNet."""
    norm: Norm = "instance"
    """Normalisation layers."""
    dropout: Probability = 0.0
    """Dropout inside blocks."""

    @model_validator(mode="after")
    def _strides_match(self) -> UNetSettings:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError("strides needs one entry fewer than channels")
        return self


class ARUNetHparams(Group):
    """The shape of HSF's network, under HSF's names."""

    modeltype: Literal["ResidualUNet3D"] = "ResidualUNet3D"
    """HSF's name for blocks of three convolutions; there is no other."""
    in_channels: Whole | None = None
    """Input channels; None follows from the data, which it must not contradict."""
    out_channels: Whole | None = None
    """Outputs of the pretrained network in HSF's YAML files. It has no effect: the
    classes follow from the labels, or from `finetuning.out_channels`."""
    f_maps: Annotated[int, Field(ge=2)] = 64
    """Channels at full resolution; each level doubles them."""
    num_levels: Annotated[int, Field(ge=2)] = 4
    """Levels, bottleneck included."""
    layer_order: Literal["cgs"] = "cgs"
    """Convolution, GELU, switchable normalisation; there is no other."""
    use_attention: bool = True
    """Whether skip connections pass attention gates."""


class ARUNetSettings(ModelSettings):
    """HSF's network, compatible with its checkpoints."""

    name: Literal["arunet"] = "arunet"
    hparams: ARUNetHparams = ARUNetHparams()
    """Widths and levels."""


class PretrainedSettings(ModelSettings):
    """The network that the pretrained weights were made with, whichever it is."""

    name: Literal["pretrained"] = "pretrained"


def check_odd(key: str, sizes: list[Size]) -> None:
    """Refuses even kernels, which would move the image.

    Raises:
        ValueError: one is even.
    """
    numbers = [n for size in sizes for n in ([size] if isinstance(size, int) else size)]
    if any(n % 2 == 0 for n in numbers):
        raise ValueError(f"{key} must be odd, so that sizes stay as they are")


def check_groups(groups: int | None, widths: list[int]) -> None:
    """Refuses groups of channels that are not equally large.

    Raises:
        ValueError: a width is no multiple of `groups`.
    """
    if groups and any(width % groups for width in widths):
        raise ValueError(f"norm_groups must divide every width, {widths}")
