"""The `models` group: networks that published weights belong to, of nnU-Net and others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hsf_finetune.config.settings.base_settings import Positive, Probability, Size, Whole
from hsf_finetune.config.settings.models_settings import ModelSettings, check_odd


def _three_axes(orientation: str) -> str:
    if sorted(map("RLAPSI".find, orientation)) not in (
        [r, a, s] for r in (0, 1) for a in (2, 3) for s in (4, 5)
    ):
        raise ValueError("orientation needs one of R and L, one of A and P, one of S and I")
    return orientation


Axes = Annotated[str, AfterValidator(_three_axes)]
"""Where the axes of a network point, in any order."""


class _StagedSettings(ModelSettings):
    """Networks of several stages, each with its own width, kernel and stride."""

    orientation: Axes = "RAS"
    """Orientation of the network's three axes: each an R or L, A or P, S or I."""
    features_per_stage: Annotated[list[Whole], Field(min_length=2)] = [32, 64, 128, 256]
    """Channels per stage, from full resolution to the bottleneck."""
    kernel_sizes: list[Size] | None = None
    """Kernels per stage (odd), along the network's axes; None is 3 everywhere."""
    strides: list[Size] | None = None
    """Halving before each stage, along the network's axes; None is 1, 2, 2, ..."""
    n_blocks_per_stage: Whole | list[Whole] = 2
    """Blocks per encoder stage."""

    @model_validator(mode="after")
    def _stages_match(self) -> _StagedSettings:
        stages = len(self.features_per_stage)
        for key, wanted in (
            ("kernel_sizes", stages),
            ("strides", stages),
            ("n_blocks_per_stage", stages),
            ("n_conv_per_stage_decoder", stages - 1),
        ):
            given = getattr(self, key, None)
            if isinstance(given, list) and len(given) != wanted:
                raise ValueError(
                    f"{key} needs {wanted} entries, as features_per_stage has {stages}"
                )
        check_odd("kernel_sizes", self.kernel_sizes or [])
        if self.strides and self.strides[0] not in (1, [1, 1, 1]):
            raise ValueError("the first of strides must be 1: logits are as fine as the image")
        return self


class NnUNetSettings(_StagedSettings):
    """nnU-Net v2's own networks, described as `architecture` in its plans.json does."""

    name: Literal["nnunet"] = "nnunet"
    architecture: Literal["PlainConvUNet", "ResidualEncoderUNet"] = "PlainConvUNet"
    """Two convolutions a stage, or residual blocks in the encoder (nnU-Net's ResEnc presets)."""
    n_blocks_per_stage: Whole | list[Whole] = 2
    """Convolutions per encoder stage, or residual blocks: n_conv_per_stage of a PlainConvUNet."""
    n_conv_per_stage_decoder: Whole | list[Whole] = 2
    """Convolutions per decoder stage, from the deepest."""
    decoder_kernels: Literal["stage", "below"] = "stage"
    """Kernels of a decoder stage: of the encoder's stage of its size, or, as in nnU-Net v1, of
    the stage below that."""
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


class STUNetSettings(_StagedSettings):
    """STU-Net: nnU-Net's plan with residual blocks, in four sizes."""

    name: Literal["stunet"] = "stunet"
    features_per_stage: Annotated[list[Whole], Field(min_length=2)] = [16, 32, 64, 128, 256, 256]
    """Channels per stage: those of STU-Net-S; base, large and huge have 2, 4 and 6 times as many."""
    n_blocks_per_stage: Whole | list[Whole] = 1
    """Residual blocks per stage of encoder and decoder; 2 in the large one, 3 in the huge."""


class SuPreMUNetSettings(ModelSettings):
    """The UNet of Models Genesis and SuPreM, of four levels."""

    name: Literal["suprem_unet"] = "suprem_unet"
    width: Annotated[int, Field(ge=2)] = 32
    """Channels of the first convolution; the second has twice as many, and each level doubles."""


class AnatomixSettings(ModelSettings):
    """anatomix's UNet, which ends in features."""

    name: Literal["anatomix"] = "anatomix"
    width: Whole = 16
    """Channels at full resolution; each level doubles them."""
    halvings: Whole = 4
    """Levels above the bottleneck."""
    features: Whole = 16
    """Channels at full resolution that the head reads."""
    norm: Literal["batch", "instance_plain"] = "batch"
    """Normalisation layers; the second are those of anatomix-dev."""
    norm_eps: Positive = 1e-5
    """Added to their variances: 1e-5, or 1e-2 in anatomix-dev."""
    pooling: Literal["max", "mean"] = "max"
    """How levels halve."""
    upsample: Literal["nearest", "trilinear"] = "nearest"
    """How levels double."""


class RSUNetSettings(ModelSettings):
    """PyTorch Connectomics' residual symmetric UNet."""

    name: Literal["rsunet"] = "rsunet"
    orientation: Axes = "RAS"
    """Orientation of the network's three axes: each an R or L, A or P, S or I."""
    channels: Annotated[list[Whole], Field(min_length=2)] = [16, 32, 64, 128]
    """Channels per level, from full resolution to the bottleneck."""
    strides: list[Size] | None = None
    """Halving between levels, along the network's axes; None is 2 everywhere."""
    kernel_size: list[Size] | None = None
    """Kernels per level (odd), along the network's axes; None is 3 everywhere."""
    norm: Literal["batch", "group", "instance_plain"] = "batch"
    """Normalisation layers."""
    norm_groups: Whole = 8
    """Groups of `norm: group`, or the most below that divide a width."""
    act: Literal["relu", "leakyrelu", "prelu", "elu"] = "relu"
    """Non-linearity."""
    negative_slope: Annotated[float, Field(ge=0)] = 0.01
    """Slope of `act: leakyrelu` below zero."""

    @model_validator(mode="after")
    def _levels_match(self) -> RSUNetSettings:
        levels = len(self.channels)
        for key, wanted in (("strides", levels - 1), ("kernel_size", levels)):
            given = getattr(self, key)
            if given is not None and len(given) != wanted:
                raise ValueError(f"{key} needs {wanted} entries for {levels} channels")
        check_odd("kernel_size", self.kernel_size or [])
        if any(isinstance(size, list) and size[1] != size[2] for size in self.strides or []):
            raise ValueError("strides of the network's last two axes must be the same")
        return self


class PrimusSettings(ModelSettings):
    """Primus: a vision transformer over patches of 8 voxels, in the sizes S, B, M and L."""

    name: Literal["primus"] = "primus"
    orientation: Axes = "RAS"
    """Orientation of the network's three axes: each an R or L, A or P, S or I."""
    embed_dim: Whole = 396
    """Channels of the transformer: 396 (S), 792 (B), 864 (M) or 1056 (L)."""
    depth: Annotated[int, Field(ge=4)] = 12
    """Its layers: 12 (S and B), 16 (M) or 24 (L)."""
    num_heads: Whole = 6
    """Attention heads: 6 (S), 12 (B and M) or 16 (L)."""
    decoder_channels: Annotated[list[Whole], Field(min_length=2, max_length=2)] = [88, 16]
    """Channels at a quarter and at half of the resolution."""
    image_size: Size = 160
    """Size that its positions are learned for, along the network's axes; they are interpolated
    to others."""
    drop_path: Probability = 0.2
    """Share of cases in which the last layer is left out in training; less of earlier ones."""

    @model_validator(mode="after")
    def _widths_match(self) -> PrimusSettings:
        if self.embed_dim % (6 * self.num_heads):
            raise ValueError("embed_dim must be a multiple of 6 * num_heads")
        sides = [self.image_size] if isinstance(self.image_size, int) else self.image_size
        if any(side % 8 for side in sides):
            raise ValueError("image_size must be made of multiples of 8")
        return self
