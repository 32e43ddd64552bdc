"""The `models` group: networks of MONAI."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hsf_finetune.config.settings.base_settings import Activation, Norm, Probability, Size, Whole
from hsf_finetune.config.settings.models_settings import ModelSettings, check_groups, check_odd
from hsf_finetune.config.settings.preprocessing_settings import Spacing


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
        check_odd("kernel_size", [self.kernel_size])
        check_odd("up_kernel_size", [self.up_kernel_size])
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
        check_groups(self.norm_groups, self.features)
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
        check_odd("kernel_size", self.kernel_size or [])
        if self.deep_supervision and self.deep_supr_num > len(self.channels) - 2:
            raise ValueError("deep_supr_num must be at most two fewer than there are channels")
        check_groups(self.norm_groups, self.channels)
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
        check_groups(self.norm_groups, [self.init_filters])
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
        check_groups(self.norm_groups, [self.feature_size])
        return self


class SegResNetDSSettings(ModelSettings):
    """MONAI's SegResNetDS, the network of Auto3DSeg."""

    name: Literal["segresnet_ds"] = "segresnet_ds"
    init_filters: Whole = 32
    """Channels at full resolution; each level doubles them."""
    blocks_down: Annotated[list[Whole], Field(min_length=2)] = [1, 2, 2, 4]
    """Residual blocks per encoder level."""
    blocks_up: Annotated[list[Whole], Field(min_length=1)] = [1, 1, 1]
    """Residual blocks per decoder level; one fewer than `blocks_down`."""
    norm: Norm = "batch"
    """Normalisation layers."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    upsample: Literal["deconv", "nontrainable", "pixelshuffle"] = "deconv"
    """Transposed convolution, linear interpolation, or channels rearranged into voxels."""
    resolution: Spacing | None = None
    """Voxel size in mm that it is made for: axes with larger voxels are halved later. None is
    that of cubes."""
    deep_supervision: bool = False
    """Whether coarser levels are trained to segment too."""
    deep_supr_num: Whole = 1
    """How many levels below full resolution that concerns; fewer than halvings."""

    @model_validator(mode="after")
    def _levels_match(self) -> SegResNetDSSettings:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up needs one entry fewer than blocks_down")
        if self.deep_supervision and self.deep_supr_num >= len(self.blocks_up):
            raise ValueError("deep_supr_num must be fewer than there are entries of blocks_up")
        check_groups(self.norm_groups, [self.init_filters])
        return self


class UNETRSettings(ModelSettings):
    """MONAI's UNETR: a vision transformer of 12 layers over patches of 16 voxels."""

    name: Literal["unetr"] = "unetr"
    feature_size: Whole = 16
    """Channels at full resolution."""
    hidden_size: Whole = 768
    """Channels of the transformer."""
    mlp_dim: Whole = 3072
    """Channels inside its layers."""
    num_heads: Whole = 12
    """Attention heads; they divide `hidden_size`."""
    image_size: Size = 96
    """Size that its positions are learned for; they are interpolated to others."""
    norm: Norm = "instance_plain"
    """Normalisation layers of the convolutions."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    dropout: Probability = 0.0
    """Dropout inside the transformer."""

    @model_validator(mode="after")
    def _widths_match(self) -> UNETRSettings:
        if self.hidden_size % self.num_heads:
            raise ValueError("num_heads must divide hidden_size")
        sides = [self.image_size] if isinstance(self.image_size, int) else self.image_size
        if any(side % 16 for side in sides):
            raise ValueError("image_size must be made of multiples of 16")
        check_groups(self.norm_groups, [self.feature_size])
        return self


class MedNeXtSettings(ModelSettings):
    """MONAI's MedNeXt: large kernels, one channel at a time."""

    name: Literal["mednext"] = "mednext"
    init_filters: Whole = 32
    """Channels at full resolution; each level doubles them."""
    kernel_size: Whole = 3
    """Kernels of the convolutions of one channel each (odd)."""
    encoder_expansion: Whole | list[Whole] = 2
    """How many times wider a block of the encoder is inside, one number or one per level."""
    bottleneck_expansion: Whole = 2
    """The same of the bottleneck."""
    decoder_expansion: Whole | list[Whole] = 2
    """The same of the decoder, from the deepest level."""
    blocks_down: Annotated[list[Whole], Field(min_length=1)] = [2, 2, 2, 2]
    """Blocks per encoder level."""
    blocks_bottleneck: Whole = 2
    """Blocks of the bottleneck."""
    blocks_up: Annotated[list[Whole], Field(min_length=1)] = [2, 2, 2, 2]
    """Blocks per decoder level, from the deepest."""
    residual: bool = True
    """Residual blocks."""
    response_norm: bool = False
    """Whether blocks normalise channels by their global response."""
    deep_supervision: bool = False
    """Whether all coarser levels are trained to segment too."""

    @model_validator(mode="after")
    def _levels_match(self) -> MedNeXtSettings:
        levels = len(self.blocks_down)
        for key in ("blocks_up", "encoder_expansion", "decoder_expansion"):
            given = getattr(self, key)
            if isinstance(given, list) and len(given) != levels:
                raise ValueError(f"{key} needs {levels} entries, as blocks_down has")
        check_odd("kernel_size", [self.kernel_size])
        return self


class ResNetUNetSettings(ModelSettings):
    """A residual network for images, as MedicalNet's, with the decoder of a UNet."""

    name: Literal["resnet_unet"] = "resnet_unet"
    depth: Literal[10, 18, 34, 50, 101, 152, 200] = 18
    """Layers of the encoder."""
    width: Whole = 64
    """Channels of its first convolution; levels double them."""
    decoder_channels: Annotated[list[Whole], Field(min_length=5, max_length=5)] = [
        256,
        128,
        64,
        32,
        16,
    ]
    """Channels per decoder level, from the deepest to full resolution."""
    norm: Norm = "instance"
    """Normalisation layers of the decoder; those of the encoder are batch."""
    norm_groups: Whole | None = None
    """Groups of `norm: group`; None is the most of 8, 4, 2 and 1 that divide every width."""
    upsample: Literal["nontrainable", "deconv", "pixelshuffle"] = "nontrainable"
    """Repetition of voxels, transposed convolution, or channels rearranged into voxels."""

    @model_validator(mode="after")
    def _groups_divide(self) -> ResNetUNetSettings:
        check_groups(self.norm_groups, self.decoder_channels)
        return self
