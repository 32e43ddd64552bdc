"""The `datasets` group: which cases, and what their labels mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hsf_finetune.config.settings.base_settings import (
    Group,
    Positive,
    Probability,
    Text,
    Whole,
    as_list,
    as_text,
)


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
    """One cohort: its folder, which files belong together, what labels mean."""

    path: str
    """Folder below `main_path`."""
    ca_type: Annotated[Literal["1/2/3", "1/23", "123"], BeforeValidator(as_text)] | None = None
    """HSF's protocols: CA1, CA2 and CA3 apart, CA2 and CA3 merged, or all merged. The
    names HEAD, TAIL, CA, CA23 and similar ones follow from it."""
    patterns: dict[str, PatternSettings] = {}
    """Name of the series -> its patterns."""
    table: str | None = None
    """In place of patterns: CSV or TSV below `path`, with the columns image, label, and if needed
    image2 (image3, ...), subject and split; its relative paths start from its own folder."""
    labels: dict[int, int] | None = None
    """Value in the label file -> label number; None keeps every value."""
    labels_names: dict[int, Text] = Field(min_length=1)
    """Label number -> name of a class or of a set of classes."""
    lut: str | None = None
    """Table of the values' colours below `path`: BIDS dseg.tsv, FreeSurfer or ITK-SNAP; None is
    a palette."""
    label_sets: dict[Text, list[Text] | Text] = {}
    """Name -> the classes that its voxels may be; `foreground` is every one of them."""
    unannotated: list[Text] = []
    """Classes that this dataset did not draw: its background voxels may be one of them."""
    ignore: list[int] = []
    """Values in the label file that mean unknown."""
    subject: str | None = None
    """Regular expression on the path below `path`; its first group is the subject."""
    weight: Positive | None = None
    """How often one of its cases is drawn in training, beside one of another dataset. None is 1,
    or more where no dataset has a weight and this one is small and in the finest protocol."""
    exclude: list[str] = []
    """Globs of files to leave out, each noted in the ledger."""
    spacing_mm: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    """HDF5 without geometry: voxel size in mm along the stored axes."""
    affine: list[list[float]] | None = None
    """HDF5 without geometry: 4x4 matrix from voxel to RAS+ millimetres."""

    @model_validator(mode="after")
    def _patterns_or_table(self) -> DatasetSettings:
        if bool(self.patterns) == (self.table is not None):
            raise ValueError("give either patterns (at least one series) or table (a CSV or TSV)")
        return self


class DatasetsSettings(Group):
    """The `datasets` group: HSF's keys, and ours beside them."""

    main_path: str = "."
    """Folder that every dataset's `path` starts from."""
    output_path: str = "outputs"
    """Folder in which each run makes a folder of its own."""
    batch_size: Whole | Literal["auto"] = 2
    """Volumes (or patches) per step and process; `auto` is 2, or 1 where two do not fit."""
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
    """Number of folds; fewer where there are fewer subjects, each of which is then a fold."""
    fold: Annotated[int, Field(ge=0)] | Literal["auto", "all"] | None = "auto"
    """Which fold validates; `all` makes one run per fold and pools them, None is a single
    split by `train_ratio`, and `auto` is `all` below `few_subjects`, else the single split."""
    prune_below: Probability | None = None
    """Mean Dice of the first fold below which a run of all folds ends after it; None is never."""
    few_subjects: Annotated[int, Field(ge=0)] = 8
    """Below so many subjects, `fold: auto` makes folds and `finetuning.budget: auto` is fixed."""
    target_spacing_mm: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    """The former name of `preprocessing.spacing`."""
    patch_vox: Annotated[list[Whole], Field(min_length=3, max_length=3)] | Literal["auto"] = [
        128,
        128,
        128,
    ]
    """Volumes larger than this train on patches of this size; `auto` is the largest that fits into
    the memory. The default becomes that of the weights, or of nnU-Net's rules, if there is one."""
    window_vox: Annotated[list[Whole], Field(min_length=3, max_length=3)] = [128, 128, 128]
    """Volumes larger than this are predicted in overlapping windows of this size; the default as
    for patches."""
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
    unlabelled: Annotated[list[str], BeforeValidator(as_list)] = []
    """Scans without labels, which `finetuning=selftrain` learns from: folders, files or patterns,
    from `main_path` or the working directory; commas join the channels of a scan."""
    unlabelled_held_out: bool = False
    """Whether scans of subjects that validate or test may be among them."""
    retention: dict[str, DatasetSettings] = {}
    """Cohorts of the source model's own task, as in `datasets`: scored before and after, to
    measure what is forgotten, and never trained on."""
    datasets: dict[str, DatasetSettings] = Field(min_length=1)
    """Name -> cohort."""

    @field_validator("train_val_test_idx")
    @classmethod
    def _three_lists(cls, value: list[list[int]] | None) -> list[list[int]] | None:
        if value is not None and len(value) not in (2, 3):
            raise ValueError("give two or three lists: training, validation[, test]")
        return value
