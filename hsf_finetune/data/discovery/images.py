"""From a dataset's patterns to its images, each with its channels and its label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings, PatternSettings
from hsf_finetune.data.discovery.conflicts import label_conflicts, matched_twice
from hsf_finetune.data.discovery.pairing import Found, glob_files, partner
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_hdf5, is_volume
from hsf_finetune.system.errors import ConfigError, DataError, UserError


@dataclass(frozen=True)
class Pair:
    """An image with its channels and label, before it has a name and a subject.

    Args:
        series: name of the pattern in the YAML.
        image: file of the first channel.
        channels: one volume per input channel.
        label: the manual segmentation.
        subject: the person, where a table says so.
        side: side of the split, where a table says so.
    """

    series: str
    image: Path
    channels: tuple[VolumeRef, ...]
    label: VolumeRef
    subject: str | None = None
    side: str | None = None


def excluded_files(dataset: DatasetSettings, root: Path) -> dict[Path, str]:
    """Files that `exclude` globs match, or whose folders they match, and the glob.

    Raises:
        DataError: a glob matches nothing, so that a bad scan may still be in.
    """
    excluded: dict[Path, str] = {}
    for glob in dataset.exclude:
        below = [] if glob.endswith("**") else glob_files(root, f"{glob}/**")
        hits = glob_files(root, glob) + below
        # Hidden files are left out anyway, so a pattern for them need not match.
        if not hits and not glob.rsplit("/", 1)[-1].startswith("."):
            raise DataError(
                f"no file matches exclude: '{glob}'",
                file=root,
                expected="a pattern below the dataset's folder, such as 'sub-07/**'",
                fix="correct or remove it",
            )
        for hit in hits:
            excluded.setdefault(hit.path, glob)
    return excluded


def annotated_images(
    name: str, dataset: DatasetSettings, root: Path, excluded: dict[Path, str]
) -> tuple[list[Pair], list[UserError]]:
    """The images of one dataset with their labels, and what is wrong with the rest.

    Args:
        name: of the dataset, for messages.
        dataset: its description.
        root: its folder.
        excluded: files to leave out and why; an image whose label or further channel
            is among them is added.
    """
    pairs: list[Pair] = []
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
            pairs.append(Pair(series, image.path, channels, label))
    problems += matched_twice([(pair.series, pair.channels[0]) for pair in pairs])
    problems += label_conflicts([(pair.channels[0], pair.label) for pair in pairs])
    if not pairs and not problems:
        problems.append(_no_images(name, root, globs, len(excluded)))
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
        volume_ref(path, key or pattern.key, dataset) for path, key in zip(paths, keys, strict=True)
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
        return volume_ref(path, key, dataset)
    if pattern.label_key is None:
        raise ConfigError(
            "the pattern names no label",
            file=image.path,
            fix="add label: (a file pattern) or label_key: (a dataset of the HDF5 file)",
        )
    return volume_ref(image.path, key, dataset)


def volume_ref(path: Path, key: str | None, dataset: DatasetSettings) -> VolumeRef:
    """A file of a dataset, with the geometry that its YAML gives HDF5 files."""
    if not is_hdf5(path):
        return VolumeRef(path)
    spacing = tuple(dataset.spacing_mm) if dataset.spacing_mm else None
    affine = tuple(tuple(row) for row in dataset.affine) if dataset.affine else None
    return VolumeRef(path, key, spacing, affine)


def _no_images(where: str, root: Path, globs: Sequence[str], excluded: int) -> UserError:
    if not globs:
        return ConfigError(f"{where} has no pattern for its images", fix="write one under mri:")
    there = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if is_volume(p))
    rest = f", ... ({len(there)} volumes)" if len(there) > 6 else ""
    found = ", ".join(there[:6]) + rest or "no NIfTI or HDF5 file at all"
    if excluded:
        return DataError(
            f"exclude: leaves no case of {where}",
            file=root,
            found=found,
            fix="make exclude: narrower, or remove the pattern",
        )
    return DataError(
        f"no image matches the pattern '{globs[0]}' of {where}",
        file=root,
        found=found,
        fix="correct mri: in the dataset's YAML; **/ stands for any folders",
    )
