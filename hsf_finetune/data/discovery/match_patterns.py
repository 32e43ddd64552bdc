"""The images that the patterns of a dataset match, each with its channels and its label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings, PatternSettings
from hsf_finetune.data.discovery.conflicts import find_images_matched_twice, find_label_conflicts
from hsf_finetune.data.discovery.pairing import GlobMatch, ImageSeries, find_partner, glob_files
from hsf_finetune.data.volumes.read_volume import VolumeRef, has_keys, is_hdf5, is_volume
from hsf_finetune.system.errors import ConfigError, DataError, UserError
from hsf_finetune.system.walk_folder import paths_below


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image with its channels and label, before it has a name and a subject.

    Args:
        series: name of the pattern in the YAML.
        channels: one volume per input channel.
        label: the manual segmentation.
        subject: the person, where a table gives it.
        side: side of the split, where a table gives it.
    """

    series: str
    channels: tuple[VolumeRef, ...]
    label: VolumeRef
    subject: str | None = None
    side: str | None = None

    @property
    def image(self) -> Path:
        """The file of the first channel."""
        return self.channels[0].path

    def exclude_incomplete(self, excluded: dict[Path, str]) -> bool:
        """Adds the image to the excluded files if one of its files is; returns whether it did."""
        paths = (ref.path for ref in (*self.channels, self.label))
        out = next((path for path in paths if path in excluded), None)
        if out is not None:
            excluded.setdefault(self.image, f"{excluded[out]} ({out.name})")
        return out is not None


def find_excluded_files(dataset: DatasetSettings, root: Path) -> dict[Path, str]:
    """Files that `exclude` globs match, or whose folders they match, each with its glob.

    Raises:
        DataError: a glob matches nothing, so that a bad scan may still be used.
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


def find_annotated_images(
    name: str, dataset: DatasetSettings, root: Path, excluded: dict[Path, str]
) -> tuple[list[AnnotatedImage], list[UserError]]:
    """The images of one dataset with their labels, and the problems with other images.

    Args:
        name: of the dataset, for messages.
        dataset: its description.
        root: its folder.
        excluded: files to leave out and why; an image whose label or further channel
            is among them is added.
    """
    pairs: list[AnnotatedImage] = []
    problems: list[UserError] = []
    for title, pattern in dataset.patterns.items():
        try:
            matched = _match_images(pattern, root)
        except UserError as error:
            problems.append(error)
            continue
        images = [match for match in matched if match.path not in excluded]
        if not images:
            problems.append(_no_images(f"{name}.{title}", root, pattern, len(matched)))
        series = ImageSeries(root, images, excluded)
        for image in images:
            try:
                channels = _find_channels(image, series, pattern, dataset)
                label = _find_label(image, series, pattern, dataset)
                pair = AnnotatedImage(title, channels, label)
                if not pair.exclude_incomplete(excluded):
                    pairs.append(pair)
            except UserError as error:
                problems.append(error)
        del matched, images, series  # as large as the pairs
    problems += find_images_matched_twice([(pair.series, pair.channels[0]) for pair in pairs])
    problems += find_label_conflicts([(pair.channels[0], pair.label) for pair in pairs])
    if not pairs and not problems:
        problems.append(_no_images(name, root, pattern, len(excluded)))
    return pairs, problems


def _match_images(pattern: PatternSettings, root: Path) -> list[GlobMatch]:
    """The files of the first channel."""
    globs = _image_globs(pattern)
    return glob_files(root, globs[0]) if globs else []


def _image_globs(pattern: PatternSettings) -> list[str]:
    return [pattern.mri] if isinstance(pattern.mri, str) else pattern.mri


def _find_channels(
    image: GlobMatch, series: ImageSeries, pattern: PatternSettings, dataset: DatasetSettings
) -> tuple[VolumeRef, ...]:
    keys = pattern.mri_key if isinstance(pattern.mri_key, list) else [pattern.mri_key]
    further = _image_globs(pattern)[1:]
    paths = [image.path, *(find_partner(image, glob, series, "channel") for glob in further)]
    count = max(len(paths), len(keys))
    if not keys or {len(paths), len(keys)} - {1, count}:
        raise ConfigError(
            "mri: and mri_key: differ in their number of channels",
            file=image.path,
            found=f"{len(paths)} patterns and {len(keys)} keys",
            fix="give one key for all channels, or one for each",
        )
    channels = zip(paths * (count // len(paths)), keys * (count // len(keys)), strict=True)
    return tuple(make_volume_ref(path, key or pattern.key, dataset) for path, key in channels)


def _find_label(
    image: GlobMatch, series: ImageSeries, pattern: PatternSettings, dataset: DatasetSettings
) -> VolumeRef:
    path = image.path
    if pattern.label is not None:
        path = find_partner(image, pattern.label, series, "label")
    elif pattern.label_key is None:
        raise ConfigError(
            "the pattern names no label",
            file=path,
            fix="add label: (a file pattern) or label_key: (a dataset of the HDF5 file)",
        )
    return make_volume_ref(path, pattern.label_key or pattern.key, dataset)


def make_volume_ref(path: Path, key: str | None, dataset: DatasetSettings) -> VolumeRef:
    """A file of a dataset, with the geometry that the dataset's YAML gives HDF5 files."""
    if not is_hdf5(path):
        return VolumeRef(path, key if has_keys(path) else None)
    spacing = tuple(dataset.spacing_mm) if dataset.spacing_mm else None
    affine = tuple(tuple(row) for row in dataset.affine) if dataset.affine else None
    return VolumeRef(path, key, spacing, affine)


def _no_images(title: str, root: Path, pattern: PatternSettings, excluded: int) -> UserError:
    """The error about a series, or a dataset, without images."""
    globs = _image_globs(pattern)
    if not globs:
        return ConfigError(f"{title} has no pattern for its images", fix="write one under mri:")
    files = sorted(p.relative_to(root).as_posix() for p in paths_below(root) if is_volume(p))
    rest = f", ... ({len(files)} volumes)" if len(files) > 6 else ""
    found = ", ".join(files[:6]) + rest or "no volume at all"
    what = f"no image matches the pattern '{globs[0]}' of {title}"
    fix = "correct mri: in the dataset's YAML; **/ stands for any folders"
    if excluded:
        what = f"exclude: leaves no case of {title}"
        fix = "make exclude: narrower, or remove the pattern"
    return DataError(what, file=root, found=found, fix=fix)
