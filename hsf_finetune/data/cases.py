"""From a dataset description to cases: which files belong together, and what became of the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hsf_finetune.data.pairing import Found, glob_files, partner
from hsf_finetune.data.subjects import subject_ids
from hsf_finetune.data.volumes import VolumeRef, is_volume, stem
from hsf_finetune.errors import ConfigError, DataError, UserError, UserErrors
from hsf_finetune.labels import BACKGROUND, ClassSpace, LabelMap, ordered_union
from hsf_finetune.settings import DatasetSettings, DatasetsSettings, PatternSettings


@dataclass(frozen=True)
class Case:
    """One annotated scan: its channels, its label and the protocol it was drawn in.

    Args:
        name: unique in the run, and fit for a file name.
        subject: the person; cases of one subject stay on one side of a split.
        dataset: name of the cohort in the YAML.
        images: one volume per input channel.
        label: the manual segmentation.
        protocol: what the label's values mean.
    """

    name: str
    subject: str
    dataset: str
    images: tuple[VolumeRef, ...]
    label: VolumeRef
    protocol: LabelMap


@dataclass(frozen=True)
class LedgerEntry:
    """What became of a file: `image`, `label`, `excluded` or `unused`, and why."""

    path: Path
    fate: str
    reason: str
    case: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Cohort:
    """Every case that the dataset descriptions give, and the fate of every file."""

    cases: tuple[Case, ...]
    classes: ClassSpace
    channels: int
    ledger: tuple[LedgerEntry, ...] = field(repr=False)


def discover(settings: DatasetsSettings) -> Cohort:
    """Finds and pairs the files of every dataset.

    Raises:
        UserError: no files, a missing or ambiguous partner, or labels that do
            not fit together; all problems at once.
    """
    classes = class_space(settings)
    cases: list[Case] = []
    ledger: list[LedgerEntry] = []
    problems: list[UserError] = []
    for name, dataset in settings.datasets.items():
        root = (Path(settings.main_path).expanduser() / dataset.path).resolve()
        if not root.is_dir():
            problems.append(_no_folder(name, root, settings, dataset))
            continue
        found, trouble = _dataset_cases(name, dataset, root, label_map(dataset, classes))
        problems += trouble
        cases += found
        ledger += _ledger(name, dataset, root, found)
    if problems:
        raise UserErrors("the dataset's files do not fit its description:", problems)
    channels = {len(case.images) for case in cases}
    if len(channels) > 1:
        raise DataError(
            "the datasets differ in their number of input channels",
            found=sorted(channels),
            fix="give every pattern's mri: the same number of entries",
        )
    return Cohort(tuple(sorted(cases, key=lambda c: c.name)), classes, channels.pop(), tuple(ledger))


def class_space(settings: DatasetsSettings) -> ClassSpace:
    """The classes of all datasets together, in the order of their label numbers."""
    groups = []
    for dataset in settings.datasets.values():
        names = {k: v for k, v in dataset.labels_names.items() if k != 0 and v != BACKGROUND}
        groups.append([names[k] for k in sorted(names)])
    return ClassSpace((BACKGROUND, *ordered_union(groups)))


def label_map(dataset: DatasetSettings, classes: ClassSpace) -> LabelMap:
    """What a dataset's label values mean, from its `labels` and `labels_names`.

    Raises:
        ConfigError: a label number has no name.
    """
    numbers = dataset.labels or {number: number for number in dataset.labels_names}
    names = {0: BACKGROUND} | dataset.labels_names
    unnamed = sorted({number for number in numbers.values() if number not in names})
    if unnamed:
        raise ConfigError(
            "label numbers without a name",
            found=unnamed,
            expected=f"one of {sorted(names)}",
            fix="add them to labels_names, or map them to 0 (background) under labels",
        )
    return LabelMap.of(classes, {value: {names[n]} for value, n in numbers.items()})


# -------------------------------------------------------------------- internals
def _dataset_cases(
    name: str, dataset: DatasetSettings, root: Path, protocol: LabelMap
) -> tuple[list[Case], list[UserError]]:
    """The cases of one dataset, and what is wrong with the rest."""
    found: list[tuple[str, Found, tuple[VolumeRef, ...], VolumeRef]] = []
    problems: list[UserError] = []
    for series, pattern in dataset.patterns.items():
        globs = [pattern.mri] if isinstance(pattern.mri, str) else pattern.mri
        images = [f for f in glob_files(root, globs[0]) if not _excluded(f.path, root, dataset)]
        if not images:
            problems.append(_no_images(f"{name}.{series}", root, globs[0]))
        for image in images:
            try:
                channels = _channels(image, images, globs, pattern, dataset, root)
                label = _label(image, images, pattern, dataset, root)
            except UserError as error:
                problems.append(error)
                continue
            found.append((series, image, channels, label))
    problems += _claimed_twice([(image, label) for _, image, _, label in found])
    subjects = subject_ids([image.path for _, image, _, _ in found], root, dataset.subject)
    cases = [
        Case(
            name=_case_name(image.path, root, name),
            subject=f"{dataset.path.strip('/') or name}/{subject}",
            dataset=name,
            images=channels,
            label=label,
            protocol=protocol,
        )
        for (_, image, channels, label), subject in zip(found, subjects, strict=True)
    ]
    return cases, problems


def _channels(
    image: Found,
    images: Sequence[Found],
    globs: Sequence[str],
    pattern: PatternSettings,
    dataset: DatasetSettings,
    root: Path,
) -> tuple[VolumeRef, ...]:
    keys = pattern.mri_key if isinstance(pattern.mri_key, list) else [pattern.mri_key]
    if len(globs) == 1:
        return tuple(_ref(image.path, key or pattern.key, dataset) for key in keys)
    paths = [image.path, *(partner(image, g, images, root, "channel") for g in globs[1:])]
    full = keys if len(keys) == len(globs) else [keys[0]] * len(globs)
    return tuple(
        _ref(path, key or pattern.key, dataset) for path, key in zip(paths, full, strict=True)
    )


def _label(
    image: Found,
    images: Sequence[Found],
    pattern: PatternSettings,
    dataset: DatasetSettings,
    root: Path,
) -> VolumeRef:
    key = pattern.label_key or pattern.key
    if pattern.label is None:
        if pattern.label_key is None:
            raise ConfigError(
                "the pattern names no label",
                file=image.path,
                fix="add label: (a file pattern) or label_key: (a dataset of the HDF5 file)",
            )
        return _ref(image.path, key, dataset)
    return _ref(partner(image, pattern.label, images, root, "label"), key, dataset)


def _ref(path: Path, key: str | None, dataset: DatasetSettings) -> VolumeRef:
    spacing = tuple(dataset.spacing_mm) if dataset.spacing_mm else None
    affine = tuple(tuple(row) for row in dataset.affine) if dataset.affine else None
    return VolumeRef(path, key, spacing, affine)


def _claimed_twice(pairs: Sequence[tuple[Found, VolumeRef]]) -> list[UserError]:
    """A label file that several images claim, or an image that is its own label."""
    images_of: dict[VolumeRef, list[Path]] = {}
    for image, label in pairs:
        images_of.setdefault(label, []).append(image.path)
    return [
        DataError(
            "several images claim the same label",
            file=label,
            found=", ".join(str(p) for p in images),
            expected="one label per image",
            fix="make the patterns narrower, or give the label the image's wildcards",
        )
        for label, images in images_of.items()
        if len(set(images)) > 1
    ]


def _case_name(path: Path, root: Path, dataset: str) -> str:
    relative = path.relative_to(root)
    return re.sub(r"[^\w.\-]+", "_", "__".join([dataset, *relative.parts[:-1], stem(path)]))


def _excluded(path: Path, root: Path, dataset: DatasetSettings) -> str | None:
    """The first `exclude` glob that a file matches, if any."""
    return next((g for g in dataset.exclude if path in {f.path for f in glob_files(root, g)}), None)


def _ledger(
    name: str, dataset: DatasetSettings, root: Path, cases: Sequence[Case]
) -> list[LedgerEntry]:
    """The fate of every volume below the dataset's folder, and of every file in use."""
    used: dict[Path, LedgerEntry] = {}
    for case in cases:
        label = case.label.path
        used[label] = LedgerEntry(label, "label", f"pairs with {case.name}", case.name, case.subject)
    for case in cases:
        for ref in case.images:
            used[ref.path] = LedgerEntry(ref.path, "image", "", case.name, case.subject)
    entries = list(used.values())
    excluded = {f.path: glob for glob in dataset.exclude for f in glob_files(root, glob)}
    for path in sorted(p for p in root.rglob("*") if is_volume(p) and p not in used):
        if path in excluded:
            reason = f"matches exclude: {excluded[path]}"
            entries.append(LedgerEntry(path, "excluded", reason))
        else:
            entries.append(LedgerEntry(path, "unused", f"no pattern of '{name}' matches it"))
    return entries


def _no_folder(
    name: str, root: Path, settings: DatasetsSettings, dataset: DatasetSettings
) -> DataError:
    return DataError(
        f"the folder of dataset '{name}' does not exist",
        file=root,
        expected=f"main_path '{settings.main_path}' joined with path '{dataset.path}'",
        fix="set datasets.main_path=/folder/of/your/data (for the template's phantom cohort: "
        "hsf-finetune phantom data)",
    )


def _no_images(where: str, root: Path, glob: str) -> DataError:
    there = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if is_volume(p))
    return DataError(
        f"no image matches the pattern '{glob}' of {where}",
        file=root,
        found=", ".join(there[:6]) + (f", ... ({len(there)} volumes)" if len(there) > 6 else "")
        if there
        else "no NIfTI or HDF5 file at all",
        fix="correct mri: in the dataset's YAML; **/ stands for any folders",
    )
