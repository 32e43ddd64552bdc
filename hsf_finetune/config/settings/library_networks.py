"""The `models` group: networks of MONAI and nnU-Net."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hsf_finetune.config.settings.base_settings import Activation, Norm, Probability, Size, Whole
from hsf_finetune.config.settings.models_settings import ModelSettings


class MonaiUNetSettings(ModelSettings):
    """MONAI's own UNet, whose last block is as wide as there are classes."""

    name: Literal["monai_unet"] = "monai_unet"
    channels: Annotated[list[Whole], Field(min_length=3)] = [16, 32, 64, 128]
    """Channels per level, from the first to the bottleneck."""
    strides: list[Size] = [2, 2, 2]
    """Halving between levels; one fewer than `channels`."""
    kernel_size: Size = 3
    """Convolutions' kernels (odd)."""
    up_kernel_size: Size = 3
    """Transposed convolutions' kernels (odd)."""
    num_res_units: Annotated[int, Field(ge=0)] = 2
    """Convolutions per residual block; 0 is a plain UNet."""
    act: Activation = "prelu"
    """Non-linearity."""
    negative_slope: Annotated[float, Field(ge=0)] = 0.01
    """Slope of `act: leakyrelu` below zero."""
    norm: Literal["instance", "instance_plain", "batch"] = "instance"
    """Normalisation layers; groups would have to divide the number of classes."""
    dropout: Probability = 0.0
    """Dropout inside blocks."""

    @model_validator(mode="after")
    def _levels_match(self) -> MonaiUNetSettings:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError("strides needs one entry fewer than channels")
        _check_odd("kernel_size", [self.kernel_size])
        _check_odd("up_kernel_size", [self.up_kernel_size])
        return self


class BasicUNetSettings(ModelSettings):
    """MONAI's BasicUNet, of five levels."""

    name: Literal["basicunet"] = "basicunet"
    features: Annotated[list[Whole], Field(min_length=6, max_length=6)] = [32, 32, 64, 128, 256, 32]
    """Channels per level, from full resolution to the bottleneck, and those the head reads."""
    act: Activation = "leakyrelu"
    """Non-linearity."""
    negative_slope: Annotated[float, Field(ge=0)] = 0.1
    """Slope of `act: leakyrelu` below zero."""
    norm: Norm = "instance"
    """Normalisation layers."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    upsample: Literal["deconv", "nontrainable", "pixelshuffle"] = "deconv"
    """Transposed convolution, linear interpolation, or channels rearranged into voxels."""
    dropout: Probability = 0.0
    """Dropout inside blocks."""

    @model_validator(mode="after")
    def _groups_divide(self) -> BasicUNetSettings:
        _check_groups(self.norm_groups, self.features)
        return self


class DynUNetSettings(ModelSettings):
    """MONAI's DynUNet, the network of nnU-Net."""

    name: Literal["dynunet"] = "dynunet"
    channels: Annotated[list[Whole], Field(min_length=3)] = [16, 32, 64, 128]
    """Channels per level, from full resolution to the bottleneck."""
    strides: list[Size] | None = None
    """Halving before each level, the first of which has none: 1; None is 1, 2, 2, ..."""
    kernel_size: list[Size] | None = None
    """Convolutions' kernels per level (odd); None is 3 everywhere."""
    norm: Norm = "instance"
    """Normalisation layers."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    residual: bool = False
    """Residual blocks."""
    trans_bias: bool = False
    """Whether transposed convolutions have a bias."""
    deep_supervision: bool = False
    """Whether coarser levels are trained to segment too."""
    deep_supr_num: Whole = 1
    """How many levels below full resolution that concerns; fewer than halvings."""
    dropout: Probability = 0.0
    """Dropout inside blocks."""

    @model_validator(mode="after")
    def _levels_match(self) -> DynUNetSettings:
        for key, given in (("strides", self.strides), ("kernel_size", self.kernel_size)):
            if given is not None and len(given) != len(self.channels):
                raise ValueError(f"{key} needs as many entries as channels")
        if self.strides and self.strides[0] not in (1, [1, 1, 1]):
            raise ValueError("the first of strides must be 1: logits are as fine as the image")
        _check_odd("kernel_size", self.kernel_size or [])
        if self.deep_supervision and self.deep_supr_num > len(self.channels) - 2:
            raise ValueError("deep_supr_num must be at most two fewer than there are channels")
        _check_groups(self.norm_groups, self.channels)
        return self


class SegResNetSettings(ModelSettings):
    """MONAI's SegResNet."""

    name: Literal["segresnet"] = "segresnet"
    init_filters: Whole = 16
    """Channels at full resolution; each level doubles them."""
    blocks_down: Annotated[list[Whole], Field(min_length=2)] = [1, 2, 2, 4]
    """Residual blocks per encoder level."""
    blocks_up: Annotated[list[Whole], Field(min_length=1)] = [1, 1, 1]
    """Residual blocks per decoder level; one fewer than `blocks_down`."""
    norm: Norm = "group"
    """Normalisation layers."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    upsample: Literal["nontrainable", "deconv", "pixelshuffle"] = "nontrainable"
    """Linear interpolation, transposed convolution, or channels rearranged into voxels."""
    dropout: Probability = 0.0
    """Dropout after the first convolution."""

    @model_validator(mode="after")
    def _levels_match(self) -> SegResNetSettings:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up needs one entry fewer than blocks_down")
        _check_groups(self.norm_groups, [self.init_filters])
        return self


class SwinUNETRSettings(ModelSettings):
    """MONAI's SwinUNETR: a Swin transformer down, convolutions up. Halves five times."""

    name: Literal["swinunetr"] = "swinunetr"
    feature_size: Annotated[int, Field(ge=12, multiple_of=12)] = 24
    """Channels at full resolution."""
    depths: Annotated[list[Whole], Field(min_length=4, max_length=4)] = [2, 2, 2, 2]
    """Transformer layers per stage."""
    num_heads: Annotated[list[Whole], Field(min_length=4, max_length=4)] = [3, 6, 12, 24]
    """Attention heads per stage; they divide its channels."""
    window_size: Size = 7
    """Side of the windows within which voxels attend to each other."""
    norm: Norm = "instance_plain"
    """Normalisation layers of the convolutions."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    use_v2: bool = False
    """A residual convolution before each stage (SwinUNETR-V2)."""
    downsample: Literal["merging", "mergingv2"] = "merging"
    """How stages halve; `merging` is the original, which MONAI's published weights have."""
    use_checkpoint: bool = False
    """Compute the attention again in the backward pass: less memory, more time."""
    dropout: Probability = 0.0
    """Dropout after the patch embedding and inside the transformer."""
    attention_dropout: Probability = 0.0
    """Dropout of attention weights."""
    drop_path: Probability = 0.0
    """Largest share of layers that are skipped (stochastic depth)."""

    @model_validator(mode="after")
    def _widths_match(self) -> SwinUNETRSettings:
        widths = [self.feature_size * 2**stage for stage in range(4)]
        if any(width % heads for width, heads in zip(widths, self.num_heads, strict=True)):
            raise ValueError(f"num_heads must divide the channels of the stages, {widths}")
        _check_groups(self.norm_groups, [self.feature_size])
        return self


class NnUNetSettings(ModelSettings):
    """nnU-Net v2's own networks, described as `architecture` in its plans.json does."""

    name: Literal["nnunet"] = "nnunet"
    architecture: Literal["PlainConvUNet", "ResidualEncoderUNet"] = "PlainConvUNet"
    """Two convolutions a stage, or residual blocks in the encoder (nnU-Net's ResEnc presets)."""
    orientation: str = "RAS"
    """Orientation of the network's three axes: each an R or L, A or P, S or I."""
    features_per_stage: Annotated[list[Whole], Field(min_length=2)] = [32, 64, 128, 256]
    """Channels per stage, from full resolution to the bottleneck."""
    kernel_sizes: list[Size] | None = None
    """Kernels per stage (odd), along the network's axes; None is 3 everywhere."""
    strides: list[Size] | None = None
    """Halving before each stage, along the network's axes; None is 1, 2, 2, ..."""
    n_blocks_per_stage: Whole | list[Whole] = 2
    """Convolutions per encoder stage, or residual blocks: n_conv_per_stage of a PlainConvUNet."""
    n_conv_per_stage_decoder: Whole | list[Whole] = 2
    """Convolutions per decoder stage, from the deepest."""
    conv_bias: bool = True
    """Whether convolutions have a bias."""
    norm_op: Literal["InstanceNorm3d", "BatchNorm3d"] | None = "InstanceNorm3d"
    """Normalisation layers."""
    norm_op_kwargs: dict[str, bool | float] = {"eps": 1e-5, "affine": True}
    """Their arguments."""
    dropout_op: Literal["Dropout", "Dropout3d"] | None = None
    """Dropout layers after convolutions."""
    dropout_op_kwargs: dict[str, bool | float] = {}
    """Their arguments."""
    nonlin: Literal["LeakyReLU", "ReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish"] = "LeakyReLU"
    """Activations."""
    nonlin_kwargs: dict[str, bool | float] = {"inplace": True}
    """Their arguments."""
    nonlin_first: bool = False
    """PlainConvUNet: whether activation comes before normalisation."""
    stem_channels: Whole | None = None
    """ResidualEncoderUNet: channels of the first convolution; None is those of stage 1."""
    deep_supervision: bool = False
    """Whether coarser stages, but the two deepest, are trained to segment too."""

    @model_validator(mode="after")
    def _stages_match(self) -> NnUNetSettings:
        stages = len(self.features_per_stage)
        for key, wanted in (
            ("kernel_sizes", stages),
            ("strides", stages),
            ("n_blocks_per_stage", stages),
            ("n_conv_per_stage_decoder", stages - 1),
        ):
            given = getattr(self, key)
            if isinstance(given, list) and len(given) != wanted:
                raise ValueError(
                    f"{key} needs {wanted} entries, as features_per_stage has {stages}"
                )
        _check_odd("kernel_sizes", self.kernel_sizes or [])
        if self.strides and self.strides[0] not in (1, [1, 1, 1]):
            raise ValueError("the first of strides must be 1: logits are as fine as the image")
        if sorted(map("RLAPSI".find, self.orientation)) not in (
            [r, a, s] for r in (0, 1) for a in (2, 3) for s in (4, 5)
        ):
            raise ValueError("orientation needs one of R and L, one of A and P, one of S and I")
        return self


def _check_odd(key: str, sizes: list[Size]) -> None:
    numbers = [n for size in sizes for n in ([size] if isinstance(size, int) else size)]
    if any(n % 2 == 0 for n in numbers):
        raise ValueError(f"{key} must be odd, so that sizes stay as they are")


def _check_groups(groups: int | None, widths: list[int]) -> None:
    if groups and any(width % groups for width in widths):
        raise ValueError(f"norm_groups must divide every width, {widths}")
