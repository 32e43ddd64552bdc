"""A dataset as nnU-Net's raw data: imagesTr, labelsTr, dataset.json and splits_final.json."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import DatasetsSettings, NnUNetSettings, Settings
from hsf_finetune.data.discovery.cases import Case, Cohort, discover
from hsf_finetune.data.discovery.channel_numbers import split_channel
from hsf_finetune.data.splits import Split, fold_count, fold_settings, split_cases
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_label_rows
from hsf_finetune.data.volumes.nibabel_formats import save_image
from hsf_finetune.data.volumes.read_volume import Volume, read_volume, stem
from hsf_finetune.export import to_nnunet
from hsf_finetune.export.export_folder import new_folder, refuse_existing
from hsf_finetune.export.nnunet_files import CONFIGURATION, dataset_number, plans_json
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.console import progress
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import SPLITS

SPLITS_FILE, PLANS_NAME = "splits_final.json", "hsf_finetune_plans"
_ENDING, _IGNORE = ".nii.gz", "ignore"


def write_raw_dataset(
    settings: Settings, output: Path, link: bool = False, model: TrainedModel | None = None
) -> None:
    """Writes the cases of a dataset as nnU-Net's raw data, with the split that a run would make.

    Labels get consecutive values, in the order of the model's classes, and cases on the test
    side go to imagesTs and labelsTs. Files that are not `.nii.gz` are written as such.

    Args:
        settings: of a run on the dataset.
        output: the folder `DatasetXXX_NAME`, which must not exist.
        link: whether images are symbolic links where they can be, in place of copies.
        model: of `models=nnunet`, whose network and preprocessing are added as plans.

    Raises:
        ConfigError: the folder's name is none of nnU-Net's, or label values stand for several
            classes, which nnU-Net cannot learn from.
        DataError: files do not fit the dataset's description, or each other.
        OutputError: the folder exists or cannot be written.
    """
    if dataset_number(output.name) is None:
        raise ConfigError(
            "nnU-Net finds datasets by the names of their folders",
            found=output.name,
            expected="Dataset, three digits, _ and a name",
            fix=f"-o {output.with_name('Dataset123_' + re.sub(r'[^A-Za-z0-9]+', '_', output.name))}",
        )
    refuse_existing(output)
    cohort = discover(settings.datasets, settings.models)
    refuse_sets_of_classes(cohort)
    splits = _splits(cohort.cases, settings.datasets, settings.seed)
    tested = {case.name for case in splits[0].test}
    names = _names(cohort.cases)
    with new_folder(output) as folder, progress("converting cases") as tick:
        for number, case in enumerate(cohort.cases):
            tick(number, len(cohort.cases))
            side = "Ts" if case.name in tested else "Tr"
            _write_case(case, names[case.name], (folder, side), link)
        channels = settings.datasets.channel_names or [
            f"channel{n}" for n in range(cohort.channels)
        ]
        description = _dataset_json(cohort, channels, len(tested), output.name)
        write_json(folder / "dataset.json", description)
        if splits[0].held_out:
            write_json(folder / SPLITS_FILE, [_train_and_val(split, names) for split in splits])
        if model is not None:
            write_json(folder / f"{PLANS_NAME}.json", _plans(model, output.name))


def convert_run(run: Path, output: Path, link: bool = False) -> None:
    """Writes the dataset of a run with its split, and the plans of its network if it is nnU-Net's.

    Args:
        run: its folder.
        output: see `write_raw_dataset`.
        link: see `write_raw_dataset`.

    Raises:
        UserError: as `write_raw_dataset`; or nnU-Net cannot prepare scans as the run did.
    """
    settings, splits = read_settings_of(run), run / SPLITS
    if fold_count(discover(settings.datasets, settings.models).cases, settings.datasets) is None:
        data = settings.datasets.model_copy(update={"split_file": str(splits)})
        settings = settings.model_copy(update={"datasets": data})
    model = TrainedModel.read(run, output.name)
    is_nnunet = isinstance(model.card.models, NnUNetSettings)
    write_raw_dataset(settings, output, link, model if is_nnunet else None)


def usage_of(dataset: Path) -> str:
    """The commands of nnU-Net that use a raw dataset, for the terminal."""
    number, prepared = dataset_number(dataset.name), f'"$nnUNet_preprocessed/{dataset.name}"'
    lines = [
        f"written: {dataset}",
        "nnU-Net finds it where it lies in the folder that $nnUNet_raw names:",
        f"  nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity",
    ]
    if (dataset / SPLITS_FILE).exists():
        lines.append(f"  cp {dataset / SPLITS_FILE} {prepared}")
    lines.append(f"  nnUNetv2_train {number} {CONFIGURATION} 0")
    if (dataset / f"{PLANS_NAME}.json").exists():
        lines += [
            "with the network and the preprocessing of the run, after the first two:",
            f"  cp {dataset / PLANS_NAME}.json {prepared}",
            f"  nnUNetv2_preprocess -d {number} -plans_name {PLANS_NAME} -c {CONFIGURATION}",
            f"  nnUNetv2_train {number} {CONFIGURATION} 0 -p {PLANS_NAME}",
        ]
    return "\n".join(lines)


def refuse_sets_of_classes(cohort: Cohort) -> None:
    """Refuses label values that stand for several classes; unknown is nnU-Net's label `ignore`.

    Raises:
        ConfigError: with each such value, and the ways out.
    """
    found = {
        f"dataset '{case.dataset}': {title}" + f" may be {', '.join(sorted(names))}"
        for case in cohort.cases
        for title, names in zip(case.protocol.row_names, case.protocol.row_sets, strict=True)
        if 1 < len(names) < len(cohort.classes)
    }
    if found:
        raise ConfigError(
            "label values stand for several classes, which nnU-Net has no words for",
            found="\n".join(sorted(found)),
            expected="one class for each value, or ignore: for values that mean unknown",
            fix="leave that dataset out: '~datasets.datasets.NAME';\nor list its value under "
            "ignore: in place of labels:, so that nnU-Net learns nothing from it",
        )
    if _IGNORE in cohort.classes.names:
        raise ConfigError(
            "nnU-Net does not learn a class called ignore", fix="give it another name"
        )


# -------------------------------------------------------------------- internals
def _plans(model: TrainedModel, dataset: str) -> dict[str, Any]:
    """Plans beside nnU-Net's own, whose preprocessed cases stay apart."""
    to_nnunet.DOOR.check(model)
    plans = plans_json(model, dataset) | {"plans_name": PLANS_NAME}
    plans["configurations"][CONFIGURATION]["data_identifier"] = f"{PLANS_NAME}_{CONFIGURATION}"
    return plans


def _splits(cases: Sequence[Case], datasets: DatasetsSettings, seed: int) -> list[Split]:
    """The splits of all folds, or the single one."""
    count = fold_count(cases, datasets)
    each = (
        [datasets] if count is None else [fold_settings(datasets, k, count) for k in range(count)]
    )
    return [split_cases(cases, one, seed) for one in each]


def _names(cases: Sequence[Case]) -> dict[str, str]:
    """Name of a case -> name in nnU-Net: that which nnU-Net's files have, unless two share it."""
    wanted = {}
    for case in cases:
        split = split_channel(stem(case.images[0].path))
        own = stem(case.label.path)
        wanted[case.name] = own if split == (own, 0) else case.name
    uses = Counter(wanted.values())
    return {name: own if uses[own] == 1 else name for name, own in wanted.items()}


def _train_and_val(split: Split, names: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        "train": [names[case.name] for case in split.train],
        "val": [names[case.name] for case in split.validation],
    }


def _write_case(case: Case, name: str, place: tuple[Path, str], link: bool) -> None:
    """Its channels as `NAME_0000.nii.gz`, ..., and its label with nnU-Net's values.

    `place` is the folder of the dataset, and Tr or Ts.
    """
    folder, side = place
    images, labels = folder / f"images{side}", folder / f"labels{side}"
    for one in (images, labels):
        one.mkdir(exist_ok=True)
    first = read_volume(case.images[0])
    label = on_grid_of(first, read_volume(case.label))
    for number, ref in enumerate(case.images):
        volume = read_volume(ref) if number else first
        target = images / f"{name}_{number:04d}{_ENDING}"
        if not ref.path.name.endswith(_ENDING) or volume.stored_shape != volume.array.shape:
            _save(np.asarray(volume.array, dtype=np.float32), volume, target)
        elif link:
            os.symlink(ref.path.resolve(), target)
        else:
            shutil.copyfile(ref.path, target)
    protocol = case.protocol
    of_row = [
        protocol.space.index(next(iter(names))) if len(names) == 1 else len(protocol.space)
        for names in protocol.row_sets
    ]
    values = np.array(of_row, dtype=np.uint8)[to_label_rows(label, protocol)]
    _save(values, first, labels / f"{name}{_ENDING}")


def _save(array: npt.NDArray[Any], like: Volume, path: Path) -> None:
    """Writes a NIfTI on the grid of a volume."""
    image = nib.Nifti1Image(array, like.affine, like.header)
    image.set_data_dtype(array.dtype)
    save_image(image, path)


def _dataset_json(
    cohort: Cohort, channels: Sequence[str], tested: int, name: str
) -> dict[str, Any]:
    labels = {name: number for number, name in enumerate(cohort.classes.names)}
    count = len(labels)
    if any(len(names) == count for case in cohort.cases for names in case.protocol.row_sets):
        labels[_IGNORE] = count
    return {
        "name": name,
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
        "numTraining": len(cohort.cases) - tested,
        "file_ending": _ENDING,
    }
