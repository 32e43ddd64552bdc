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
@dataclass(frozen=True)
class _Pair:
    """An image with its channels and label, before it has a name and a subject."""

    series: str
    image: Path
    channels: tuple[VolumeRef, ...]
    label: VolumeRef


def _excluded(dataset: DatasetSettings, root: Path) -> dict[Path, str]:
    """Files that `exclude` globs match, or whose folders they match, and the glob.

    Raises:
        DataError: a glob matches nothing, so that a bad scan may still be in.
    """
    excluded: dict[Path, str] = {}
    for glob in dataset.exclude:
        below = f"{glob.rstrip('/')}/**"
        hits = glob_files(root, glob) + glob_files(root, below)
        if not hits:
            raise DataError(
                f"no file matches exclude: '{glob}'",
                file=root,
                expected="a pattern below the dataset's folder, such as 'sub-07/**'",
                fix="correct or remove it",
            )
        for hit in hits:
            excluded.setdefault(hit.path, glob)
    return excluded


def _dataset_pairs(
    name: str, dataset: DatasetSettings, root: Path, excluded: dict[Path, str]
) -> tuple[list[_Pair], list[UserError]]:
    """The images of one dataset with their labels, and what is wrong with the rest.

    A case whose label or further channel is excluded is noted in `excluded`.
    """
    pairs: list[_Pair] = []
    problems: list[UserError] = []
    for series, pattern in dataset.patterns.items():
        globs = [pattern.mri] if isinstance(pattern.mri, str) else pattern.mri
        try:
            matched = glob_files(root, globs[0]) if globs else []
        except UserError as error:
            problems.append(error)
            continue
        images = [image for image in matched if image.path not in excluded]
        if not images:
            problems.append(_no_images(f"{name}.{series}", root, globs, len(matched)))
        for image in images:
            try:
                channels = _channels(image, images, globs, pattern, dataset, root, excluded)
                label = _label(image, images, pattern, dataset, root, excluded)
            except UserError as error:
                problems.append(error)
                continue
            out = next((ref.path for ref in (*channels, label) if ref.path in excluded), None)
            if out is not None:
                excluded[image.path] = f"{excluded[out]} ({out.name})"
                continue
            pairs.append(_Pair(series, image.path, channels, label))
    problems += matched_twice([(pair.series, pair.channels[0]) for pair in pairs])
    problems += label_conflicts([(pair.channels[0], pair.label) for pair in pairs])
    if not pairs and not problems:
        problems.append(_no_images(name, root, ["exclude"], len(excluded)))
    return pairs, problems


def _channels(
    image: Found,
    images: Sequence[Found],
    globs: Sequence[str],
    pattern: PatternSettings,
    dataset: DatasetSettings,
    root: Path,
    excluded: Collection[Path],
) -> tuple[VolumeRef, ...]:
    keys = pattern.mri_key if isinstance(pattern.mri_key, list) else [pattern.mri_key]
    paths = [
        image.path,
        *(partner(image, glob, images, root, "channel", excluded) for glob in globs[1:]),
    ]
    count = max(len(paths), len(keys))
    if not keys or {len(paths), len(keys)} - {1, count}:
        raise ConfigError(
            "mri: and mri_key: differ in their number of channels",
            file=image.path,
            found=f"{len(paths)} patterns and {len(keys)} keys",
            fix="give one key for all channels, or one for each",
        )
    paths, keys = paths * (count // len(paths)), keys * (count // len(keys))
    return tuple(
        _ref(path, key or pattern.key, dataset) for path, key in zip(paths, keys, strict=True)
    )


def _label(
    image: Found,
    images: Sequence[Found],
    pattern: PatternSettings,
    dataset: DatasetSettings,
    root: Path,
    excluded: Collection[Path],
) -> VolumeRef:
    key = pattern.label_key or pattern.key
    if pattern.label is not None:
        path = partner(image, pattern.label, images, root, "label", excluded)
        return _ref(path, key, dataset)
    if pattern.label_key is None:
        raise ConfigError(
            "the pattern names no label",
            file=image.path,
            fix="add label: (a file pattern) or label_key: (a dataset of the HDF5 file)",
        )
    return _ref(image.path, key, dataset)


def _ref(path: Path, key: str | None, dataset: DatasetSettings) -> VolumeRef:
    if not is_hdf5(path):
        return VolumeRef(path)
    spacing = tuple(dataset.spacing_mm) if dataset.spacing_mm else None
    affine = tuple(tuple(row) for row in dataset.affine) if dataset.affine else None
    return VolumeRef(path, key, spacing, affine)


def _cases(
    name: str, dataset: DatasetSettings, root: Path, base: Path, pairs: Sequence[_Pair], classes: ClassSpace
) -> list[Case]:
    """The pairs as cases, named after their files."""
    protocol = label_map(dataset, classes)
    subjects = subject_ids([pair.image for pair in pairs], root, dataset.subject)
    # Two datasets in one folder are the same people, two folders are not.
    cohort = os.path.relpath(root, base)
    return [
        Case(
            name=_file_name(name, *pair.image.relative_to(root).parts[:-1], stem(pair.image)),
            subject=subject if cohort == "." else f"{Path(cohort).as_posix()}/{subject}",
            dataset=name,
            images=pair.channels,
            label=pair.label,
            protocol=protocol,
        )
        for pair, subject in zip(pairs, subjects, strict=True)
    ]


def _file_name(*parts: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", "__".join(parts))


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
