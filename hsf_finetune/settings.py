"""Every setting, typed: one class per group of `conf/`.

The YAML files in `conf/` carry the defaults that users see and a comment above
each key; these classes carry types, bounds and the fallbacks for keys that a
user's own YAML leaves out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1)]
Size = Whole | Annotated[list[Whole], Field(min_length=3, max_length=3)]
"""One number for the three axes, or one for each."""
Norm = Literal["instance", "instance_plain", "batch", "group"]
"""Normalisation with learnt gain and offset, which `instance_plain` goes without."""
Activation = Literal["prelu", "relu", "leakyrelu", "gelu", "elu"]
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
"""A text that YAML may have read as a number, such as a class called 123."""


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) else value


class Group(BaseModel):
    """A group of settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# --------------------------------------------------------------------- datasets
class PatternSettings(Group):
    """One series of images and the labels that belong to them."""

    mri: str | list[str]
    """Glob below the dataset's path; a list gives one pattern per input channel."""
    label: str | None = None
    """Label file of an image; None where `label_key` names it in the image's file."""
    key: str | None = None
    """HDF5: dataset inside the file, for image and label alike."""
    mri_key: str | list[str] | None = None
    """HDF5: dataset of the image; a list gives one per input channel."""
    label_key: str | None = None
    """HDF5: dataset of the label."""


class DatasetSettings(Group):
    """One cohort: where it lies, which files belong together, what labels mean."""

    path: str
    """Folder below `main_path`."""
    ca_type: Annotated[Literal["1/2/3", "1/23", "123"], BeforeValidator(_as_text)] | None = None
    """HSF's protocols: CA1, CA2 and CA3 apart, CA2 and CA3 merged, or all merged. It says
    what the names HEAD, TAIL, CA, CA23 and the like stand for."""
    patterns: dict[str, PatternSettings] = Field(min_length=1)
    """Name of the series -> its patterns."""
    labels: dict[int, int] | None = None
    """Value in the label file -> label number; None keeps every value."""
    labels_names: dict[int, Text] = Field(min_length=1)
    """Label number -> name of a class or of a set of classes."""
    label_sets: dict[Text, list[Text] | Text] = {}
    """Name -> the classes that its voxels may be; `foreground` is every one of them."""
    unannotated: list[Text] = []
    """Classes that this dataset did not draw: its background voxels may be one of them."""
    ignore: list[int] = []
    """Values in the label file that say nothing about their voxel."""
    subject: str | None = None
    """Regular expression on the path below `path`; its first group is the subject."""
    exclude: list[str] = []
    """Globs of files to leave out, each noted in the ledger."""
    spacing_mm: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    """HDF5 without geometry: voxel size in mm along the stored axes."""
    affine: list[list[float]] | None = None
    """HDF5 without geometry: 4x4 matrix from voxel to RAS+ millimetres."""


class DatasetsSettings(Group):
    """The `datasets` group: HSF's keys, and ours beside them."""

    main_path: str = "."
    """Folder that every dataset's `path` starts from."""
    output_path: str = "outputs"
    """Folder in which each run makes a folder of its own."""
    batch_size: Whole = 2
    """Volumes (or patches) per step and process."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes; capped at the CPU count."""
    pin_memory: bool = True
    """Page-locked host memory, where there is a GPU."""
    train_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of subjects that train; the rest validates."""
    replace: bool = False
    """Whether an epoch draws its cases with replacement."""
    k_sample: Whole | None = None
    """Cases drawn per epoch; None is every training case once."""
    train_val_test_idx: list[list[int]] | None = None
    """Case numbers (order of the ledger) for training, validation and test."""
    train_on_all: bool = False
    """Train on every case; validation then measures fit, not generalisation."""
    split_file: str | None = None
    """A splits.json to use instead of drawing a split."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds when `fold` is set."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Which fold validates; None is a single split by `train_ratio`."""
    target_spacing_mm: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    """Voxel size to resample to, in RAS+ order; None keeps each volume's own."""
    patch_vox: Annotated[list[Whole], Field(min_length=3, max_length=3)] = [128, 128, 128]
    """Volumes larger than this train on patches of this size."""
    window_vox: Annotated[list[Whole], Field(min_length=3, max_length=3)] = [128, 128, 128]
    """Volumes larger than this are predicted in overlapping windows of this size."""
    foreground_share: Probability = 0.67
    """Share of patches centred on a labelled voxel."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where preprocessed volumes are kept."""
    cache_dir: str | None = None
    """Folder of the disk cache; None is inside the user's cache folder."""
    allow_unsupervised: list[Text] = []
    """Classes of the model that no training label needs to show."""
    generate: Literal["phantom"] | None = None
    """Make the phantom cohort below `main_path` first, where it is missing."""
    channel_names: list[Text] | None = None
    """Name of each input channel, in the order of `mri:`, such as `[T1w, T2w]`."""
    datasets: dict[str, DatasetSettings] = Field(min_length=1)
    """Name -> cohort."""

    @field_validator("train_val_test_idx")
    @classmethod
    def _three_lists(cls, value: list[list[int]] | None) -> list[list[int]] | None:
        if value is not None and len(value) not in (2, 3):
            raise ValueError("give two or three lists: training, validation[, test]")
        return value


# ----------------------------------------------------------------------- models
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
    use_forgiving_loss: bool = False
    """Whether label values may stand for several classes."""
    labels_names: Annotated[list[Text], Field(min_length=1)] | None = None
    """The model's classes in the order of its outputs; None is the datasets' finest ones."""
    in_channels: Whole | None = None
    """Input channels; None follows from the dataset's patterns."""


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
        for key, given in (
            ("kernel_size", self.kernel_size),
            ("up_kernel_size", self.up_kernel_size),
        ):
            if any(k % 2 == 0 for k in ([given] if isinstance(given, int) else given)):
                raise ValueError(f"{key} must be odd, so that sizes stay as they are")
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
        kernels = [
            k
            for size in self.kernel_size or ()
            for k in ([size] if isinstance(size, int) else size)
        ]
        if any(k % 2 == 0 for k in kernels):
            raise ValueError("kernel_size must be odd, so that sizes stay as they are")
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
    """Compute the attention again on the way back: less memory, more time."""
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


class ARUNetHparams(Group):
    """The shape of HSF's network, under HSF's names."""

    modeltype: Literal["ResidualUNet3D"] = "ResidualUNet3D"
    """HSF's name for blocks of three convolutions; there is no other."""
    in_channels: Whole | None = None
    """Input channels; None follows from the data, which it must not contradict."""
    out_channels: Whole | None = None
    """Outputs of the pretrained network in HSF's YAML files. It builds nothing here: the
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


class NnUNetSettings(ModelSettings):
    """nnU-Net v2's own networks, described as `architecture` in its plans.json does."""

    name: Literal["nnunet"] = "nnunet"
    architecture: Literal["PlainConvUNet", "ResidualEncoderUNet"] = "PlainConvUNet"
    """Two convolutions a stage, or residual blocks in the encoder (nnU-Net's ResEnc presets)."""
    orientation: str = "RAS"
    """Where the network's three axes point: each an R or L, A or P, S or I."""
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
    """What they are made with."""
    dropout_op: Literal["Dropout", "Dropout3d"] | None = None
    """Dropout layers after convolutions."""
    dropout_op_kwargs: dict[str, bool | float] = {}
    """What they are made with."""
    nonlin: Literal["LeakyReLU", "ReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish"] = "LeakyReLU"
    """Activations."""
    nonlin_kwargs: dict[str, bool | float] = {"inplace": True}
    """What they are made with."""
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
        kernels = [k for size in self.kernel_sizes or () for k in _each(size)]
        if any(k % 2 == 0 for k in kernels):
            raise ValueError("kernel_sizes must be odd, so that sizes stay as they are")
        if self.strides and self.strides[0] not in (1, [1, 1, 1]):
            raise ValueError("the first of strides must be 1: logits are as fine as the image")
        if sorted(map("RLAPSI".find, self.orientation)) not in (
            [r, a, s] for r in (0, 1) for a in (2, 3) for s in (4, 5)
        ):
            raise ValueError("orientation needs one of R and L, one of A and P, one of S and I")
        return self


class PretrainedSettings(ModelSettings):
    """The network that the pretrained weights were made with, whichever it is."""

    name: Literal["pretrained"] = "pretrained"


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


def _each(size: Size) -> list[int]:
    return [size] if isinstance(size, int) else size


def _check_groups(groups: int | None, widths: list[int]) -> None:
    if groups and any(width % groups for width in widths):
        raise ValueError(f"norm_groups must divide every width, {widths}")


# ------------------------------------------------------------------- finetuning
class NamedWeights(Group):
    """Published weights that `finetuning.pretrained` knows by name: a file of `weights/`."""

    name: str
    """What they are called in full, with the version."""
    url: str
    """An https URL, or `hf://owner/repo/path[@revision]`."""
    checksum: Text
    """What the file must come to, such as `sha256:...`."""
    licence: str
    """Under which one may use them."""
    classes: Annotated[list[str], Field(min_length=2)]
    """Class of each output channel, background first."""
    channels: Annotated[list[str], Field(min_length=1)]
    """What each input channel shows."""
    models: NetworkSettings
    """The network they belong to."""
    source: str
    """Page that describes them."""
    citation: str
    """What to cite."""


class StageSettings(Group):
    """One stage of `finetuning=staged`."""

    epochs: Whole
    """Length, or greatest length where there is a patience."""
    patience_epochs: Whole | None = None
    """End the stage after so many epochs without a better validation Dice."""
    freeze_level: Literal[0, 1, 2] | None = None
    """2 trains the head, 1 decoder and head, 0 everything."""
    blocks: list[str] | None = None
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


OTHER_NAMES = {
    "external_weights_path": "pretrained",
    "external_weights_key_prefix": "key_prefix",
}
"""Names that PyTorch Connectomics has for settings of this group."""


class FinetuningSettings(Group):
    """Where the weights come from, and which part trains when."""

    strategy: Literal[
        "gradual_unfreezing",
        "full",
        "linear",
        "gradual",
        "progressive",
        "staged",
        "lpft",
        "encoder_first",
    ] = "gradual_unfreezing"
    """The regime: which part trains when (schedule/strategies.py has one function for each)."""
    mode: Literal["encoder", "decoder", "both"] = "decoder"
    """Which side of the network thaws, and from which end."""
    depth: Annotated[int, Field(ge=-1)] = -1
    """Blocks that thaw beside the head; -1 is every block of the mode."""
    unfreeze_frequency: Whole = 4
    """Epochs between two thaws."""
    out_channels: Annotated[int, Field(ge=2)] | None = None
    """Output channels, background included; None follows from the labels."""
    pretrained: str | None = None
    """Checkpoint, run folder, URL, `hf://...`, name of a file of `weights/`, `demo`, or
    `none` to start from random weights."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of a run folder."""
    key_prefix: Annotated[str, Field(min_length=1)] | None = None
    """What the names of the network's tensors begin with in the file; None finds it."""
    trust: list[str] = []
    """Functions and classes that this file may load beside tensors and plain data."""
    checksum: Text | None = None
    """What the file of the weights must come to, such as `sha256:...`."""
    offline: bool = False
    """Take what comes from the network from the cache alone."""
    named: NamedWeights | None = None
    """The file of `weights/` that `pretrained` names; found by the configuration."""
    source_classes: list[str] | None = None
    """Class of each output channel of a checkpoint that does not say, background first."""
    source_fold: int | Literal["all"] | None = None
    """Which fold of an nnU-Net; None is that of all cases, or the first."""
    source_orientation: Annotated[str, Field(pattern="^[RLAPSI]{3}$")] = "RAS"
    """How the images lay that an nnU-Net was trained on, which it does not say."""
    use_ema: bool = True
    """Averaged weights where the checkpoint has them, or the raw ones."""
    derive_from: dict[str, str | list[str]] | None = None
    """New class -> class (or classes) of the pretrained model it comes out of."""
    head: Literal["transfer", "copy", "fresh"] = "transfer"
    """Output channels by class name, copied by position, or as initialised."""
    input_channels: Literal["mean", "zero"] | dict[Text, Text] | None = None
    """What becomes of input channels without a counterpart; or channel -> one of the
    checkpoint's, `mean` or `zero`."""
    source_channels: list[Text] | None = None
    """Name of each input channel of a checkpoint that does not say."""
    match: Literal["name", "order"] = "name"
    """Whether tensors are paired by name, or by order and shape."""
    key_map: dict[Text, str] | None = None
    """Tensor name of the checkpoint, or prefix that ends in a dot -> the network's."""
    min_loaded: Probability = 0.9
    """Smallest share of the trunk (its tensors, and its parameters) that must load."""
    lr_factors: dict[str, Positive] = {}
    """Block (or `encoder`, `decoder`, `backbone`, `norms`) -> factor of its learning rate."""
    llrd_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise decay: factor of the rate for each block farther from the head."""
    warmup: Probability = 0.1
    """Share of a block's training time in which its rate rises."""
    final_lr_factor: Probability = 0.0
    """Where the cosine ends, as a share of the peak rate."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.99
    """Decay of the averaged weights; None trains without."""
    early_stopping_epochs: Whole | None = None
    """Epochs without a better validation Dice that end the last stage, and the run."""
    linear_probe_epochs: Whole = 10
    """linear, lpft: most epochs of the head alone."""
    gradual_patience: Whole = 3
    """linear, gradual: epochs without a better validation Dice that end a stage."""
    gradual_top_blocks: Whole = 2
    """gradual: blocks next to the head that train with it in the second stage."""
    freeze_backbone: bool = True
    """progressive: whether encoder and bottleneck start frozen."""
    unfreeze_backbone_at_epoch: Annotated[int, Field(ge=-1)] = -1
    """progressive: epoch in which they thaw, whatever `freeze_backbone` says; -1 never."""
    lpft_lr_factor: Positive = 0.3
    """lpft: the rate of everything as a share of the head's before."""
    encoder_blocks: Whole = 2
    """encoder_first: how many encoder blocks train, counted from the input."""
    stages: list[StageSettings] = []
    """staged: what trains, one stage after the other."""
    regularise: Literal["l2sp"] | None = None
    """Pull the weights towards where they started, in place of towards 0."""
    l2sp_strength: Annotated[float, Field(ge=0)] = 0.1
    """How strongly: the share of the distance that a step at rate 1 takes back."""
    divergence_share: Positive | None = 0.2
    """Warn if the validation loss of the first epochs exceeds the pretrained model's by more."""

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, given: Any) -> Any:
        """Takes what PyTorch Connectomics calls a setting for ours."""
        if not isinstance(given, dict):
            return given
        known = {key: value for key, value in given.items() if key not in OTHER_NAMES}
        for other, ours in OTHER_NAMES.items():
            value = given.get(other)
            if value is None:
                continue
            if known.get(ours) not in (None, value):
                raise ValueError(f"{other}={value} contradicts {ours}={known[ours]}; give one")
            known[ours] = value
        return known


# ----------------------------------------------------------------- augmentation
class AugmentationSettings(Group):
    """Random changes of training images.

    Distances are in voxels, angles in degrees, intensities in units of the
    z-normalised image. Each `*_p` is the probability per volume; what is applied is
    uniform between nothing and the strength given here.
    """

    pipeline: Literal["none", "batched", "torchio_hsf"] = "batched"
    """Nothing, our batched pipeline on the training device, or HSF's TorchIO one."""
    flip: bool | Literal["auto"] = "auto"
    """Left-right flips; `auto` unless class names tell left from right."""
    lr_pairs: list[Annotated[list[Text], Field(min_length=2, max_length=2)]] | Literal["auto"] = (
        "auto"
    )
    """Classes that a left-right flip exchanges; `auto` finds them by their names."""
    flip_p: Probability = 0.5
    affine_p: Probability = 0.35
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest angle about each axis."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest magnification of each axis less 1; as likely shrunk by the same ratio."""
    translation_vox: Annotated[float, Field(ge=0)] = 3.0
    elastic_p: Probability = 0.2
    elastic_vox: Annotated[float, Field(ge=0)] = 5.0
    """Largest move of a B-spline control point; voxels move about a fifth of it."""
    elastic_points: Annotated[int, Field(ge=4, le=32)] = 6
    """Control points per axis; three of them lie outside the volume's cells."""
    gamma_p: Probability = 0.3
    gamma_log: Annotated[float, Field(ge=0)] = 0.4
    """Largest logarithm of the exponent."""
    bias_p: Probability = 0.2
    bias_log: Annotated[float, Field(ge=0)] = 1.0
    """Largest logarithm of the gain at a control point; voxels get about a fifth of it."""
    blur_p: Probability = 0.15
    blur_vox: Annotated[float, Field(ge=0)] = 1.0
    """Largest standard deviation of the Gaussian."""
    noise_p: Probability = 0.15
    noise_std: Annotated[float, Field(ge=0)] = 0.3
    lowres_p: Probability = 0.15
    lowres_factor: Annotated[float, Field(ge=1)] = 2.0
    """Most voxels along an axis that become one before they are interpolated back."""

    def with_strength(self, strength: float) -> AugmentationSettings:
        """The same changes, each so many times as probable (1 is always, at the most)."""
        chances = {name: value for name, value in self if name.endswith("_p")}
        return self.model_copy(
            update={name: min(value * strength, 1.0) for name, value in chances.items()}
        )


# -------------------------------------------------------------------- lightning
class LightningSettings(Group):
    """The `lightning` group: how the loop runs."""

    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: Whole = 1
    strategy: str = "auto"
    precision: str = "auto"
    """`auto` is bf16-mixed on CUDA devices that have it and 32-true elsewhere."""
    max_epochs: Whole | None = None
    """None follows from the schedule."""
    accumulate_grad_batches: Whole = 1
    gradient_clip_val: Positive | None = 1.0
    check_val_every_n_epoch: Whole = 1
    log_every_n_steps: Whole = 10
    benchmark: bool = True
    deterministic: bool | Literal["warn"] = False
    threads: Whole | None = None
    """CPU threads; None leaves PyTorch's choice."""


class LoggerSettings(Group):
    """The `logger` group. metrics.csv is always written."""

    name: Literal["tensorboard", "csv", "wandb"] = "tensorboard"
    project: str = "hsf_finetune"
    """wandb: project name."""
    offline: bool = False
    """wandb: keep everything local."""


class Settings(Group):
    """Everything a run needs to know."""

    task: Literal["finetune", "train"] = "finetune"
    name: Text | None = None
    """Part of the run folder's name; None is the names of the cohorts."""
    seed: Annotated[int, Field(ge=0)] = 0
    resume: str | None = None
    """`auto`, a run folder or a checkpoint to go on from."""
    reset: list[Literal["optimizer", "scheduler", "epoch"]] = []
    """What a resumed run starts anew; the rest goes on."""
    run_dir: str | None = None
    """Folder of this run; None makes a new one below datasets.output_path."""
    datasets: DatasetsSettings
    models: NetworkSettings
    finetuning: FinetuningSettings
    augmentation: AugmentationSettings
    augmentations: dict[str, AugmentationSettings] = {}
    """Presets by name, for stages that ask for another one."""
    lightning: LightningSettings
    logger: LoggerSettings

    def plain(self) -> dict[str, Any]:
        """The settings as plain types, for checkpoints and YAML."""
        return self.model_dump(mode="json")


def cache_folder() -> Path:
    """Where downloads, demo models and disk caches go (HSF_FINETUNE_CACHE overrides)."""
    given = os.environ.get("HSF_FINETUNE_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "hsf_finetune"
