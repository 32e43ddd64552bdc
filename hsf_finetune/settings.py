"""Every setting, typed: one class per group of `conf/`.

The YAML files in `conf/` carry the defaults that users see and a comment above
each key; these classes carry types, bounds and the fallbacks for keys that a
user's own YAML leaves out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
"""A text that YAML may have read as a number, such as `ca_type: 123`."""


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
    ca_type: Text | None = None
    """HSF's name for the protocol (`1/2/3`, `1/23`, `123`), kept as a remark."""
    patterns: dict[str, PatternSettings] = Field(min_length=1)
    """Name of the series -> its patterns."""
    labels: dict[int, int] | None = None
    """Value in the label file -> label number; None keeps every value."""
    labels_names: dict[int, Text] = Field(min_length=1)
    """Label number -> class name."""
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
    generate: Literal["phantom"] | None = None
    """Make the phantom cohort below `main_path` first, where it is missing."""
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
    loss: Literal["dice_ce", "focal_tversky"] = "dice_ce"
    """Dice + cross-entropy, or HSF's focal Tversky."""
    use_forgiving_loss: bool = False
    """Whether label values may stand for several classes."""
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
    norm: Literal["instance", "batch", "group"] = "instance"
    """Normalisation layers."""
    dropout: Probability = 0.0
    """Dropout inside blocks."""

    @model_validator(mode="after")
    def _strides_match(self) -> UNetSettings:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError("strides needs one entry fewer than channels")
        return self


class DynUNetSettings(ModelSettings):
    """MONAI's DynUNet, the network of nnU-Net."""

    name: Literal["dynunet"] = "dynunet"
    channels: Annotated[list[Whole], Field(min_length=3)] = [16, 32, 64, 128]
    """Channels per level, from full resolution to the bottleneck."""
    norm: Literal["instance", "batch", "group"] = "instance"
    """Normalisation layers."""
    residual: bool = False
    """Residual blocks."""
    dropout: Probability = 0.0
    """Dropout inside blocks."""


class SegResNetSettings(ModelSettings):
    """MONAI's SegResNet."""

    name: Literal["segresnet"] = "segresnet"
    init_filters: Whole = 16
    """Channels at full resolution; each level doubles them."""
    blocks_down: Annotated[list[Whole], Field(min_length=2)] = [1, 2, 2, 4]
    """Residual blocks per encoder level."""
    blocks_up: Annotated[list[Whole], Field(min_length=1)] = [1, 1, 1]
    """Residual blocks per decoder level; one fewer than `blocks_down`."""
    norm: Literal["instance", "batch", "group"] = "group"
    """Normalisation layers."""
    dropout: Probability = 0.0
    """Dropout after the first convolution."""

    @model_validator(mode="after")
    def _levels_match(self) -> SegResNetSettings:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up needs one entry fewer than blocks_down")
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


NetworkSettings = Annotated[
    Union[UNetSettings, DynUNetSettings, SegResNetSettings, ARUNetSettings],  # noqa: UP007
    Field(discriminator="name"),
]


# ------------------------------------------------------------------- finetuning
class FinetuningSettings(Group):
    """Where the weights come from, and which part trains when."""

    strategy: Literal["gradual_unfreezing", "full"] = "gradual_unfreezing"
    """HSF's gradual unfreezing, or everything from the first epoch on."""
    mode: Literal["encoder", "decoder", "both"] = "decoder"
    """Which side of the network thaws, and from which end."""
    depth: Annotated[int, Field(ge=-1)] = -1
    """Blocks that thaw beside the head; -1 is every block of the mode."""
    unfreeze_frequency: Whole = 4
    """Epochs between two thaws."""
    out_channels: Annotated[int, Field(ge=2)] | None = None
    """Output channels, background included; None follows from the labels."""
    pretrained: str | None = None
    """Checkpoint, run folder, `demo`, or `none` to start from random weights."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of a run folder."""
    source_classes: list[str] | None = None
    """Class of each output channel of a checkpoint that does not say, background first."""
    use_ema: bool = True
    """Averaged weights where the checkpoint has them, or the raw ones."""
    derive_from: dict[str, str | list[str]] | None = None
    """New class -> class (or classes) of the pretrained model it comes out of."""
    min_loaded: Probability = 0.9
    """Smallest share of the trunk (its tensors, and its parameters) that must load."""
    head_lr_factor: Positive = 1.0
    """The head's learning rate as a multiple of `models.lr`."""
    warmup: Probability = 0.1
    """Share of a block's training time in which its rate rises."""
    final_lr_factor: Probability = 0.0
    """Where the cosine ends, as a share of the peak rate."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.99
    """Decay of the averaged weights; None trains without."""
    early_stopping_epochs: Whole | None = None
    """Epochs without a better validation Dice, counted after the last thaw."""


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
    num_sanity_val_steps: int = 0
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
    run_dir: str | None = None
    """Folder of this run; None makes a new one below datasets.output_path."""
    datasets: DatasetsSettings
    models: NetworkSettings
    finetuning: FinetuningSettings
    augmentation: AugmentationSettings
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
