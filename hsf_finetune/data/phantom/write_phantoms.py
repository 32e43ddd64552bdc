"""A cohort of phantoms with known subfields, as NIfTI and HDF5.

It makes every command of the package runnable without patient data: a source of
T1-like volumes in six classes and a target of T2-like ones in eight, deterministic
by seed and subject number.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.phantom.phantom_image import Contrast, Phantom, make_phantom
from hsf_finetune.data.phantom.phantom_protocol import PROTOCOLS
from hsf_finetune.data.phantom.phantom_shape import SIDES, Side
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import ConfigError, DataError

VERSION = 1
"""Increased whenever the same parameters give other volumes or files."""
DESCRIPTION = "phantom.json"
SOURCE, TARGET = "source_T1w", "target_T2w"
TARGET_HDF5, TARGET_HDF5_SINGLE = "target_T2w_hdf5", "target_T2w_hdf5_single"
_KIND = "hsf_finetune phantom cohort"
_TARGET_OFFSET = 1000  # target subjects are other people than source subjects


@dataclass(frozen=True)
class PhantomCohort:
    """The parameters of a phantom cohort.

    Args:
        seed: not negative.
        source_subjects: number of source subjects, two volumes (sides) each.
        target_subjects: number of target subjects, two volumes (sides) each.
        shape_vox: size of every volume, (X, Y, Z).
        spacing_mm: voxel size of every volume, along every axis.

    Raises:
        ConfigError: a count or the seed is out of range.
    """

    seed: int = 0
    source_subjects: int = 12
    target_subjects: int = 8
    shape_vox: tuple[int, int, int] = (40, 56, 40)
    spacing_mm: float = 0.8

    def __post_init__(self) -> None:
        if not all(1 <= count <= 999 for count in (self.source_subjects, self.target_subjects)):
            raise ConfigError(
                "a phantom cohort has 1 to 999 source and target subjects",
                found=f"{self.source_subjects} source, {self.target_subjects} target",
            )
        if self.seed < 0:
            raise ConfigError("a phantom cohort's seed must not be negative", found=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The content of `phantom.json`, as JSON gives it back."""
        names = {
            folder: {str(value): name for value, name in PROTOCOLS[key].labels_names.items()}
            for folder, key in ((SOURCE, "coarse"), (TARGET, "fine"))
        }
        own = {**asdict(self), "shape_vox": list(self.shape_vox)}
        return {"kind": _KIND, "version": VERSION, **own, "labels_names": names}


def is_phantom(folder: Path) -> bool:
    """Whether a folder holds a complete phantom cohort of this version."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = {"kind": _KIND, "version": VERSION}
    return isinstance(description, dict) and wanted.items() <= description.items()


def make_phantom_cohort(datasets: DatasetsSettings) -> None:
    """Writes the phantom cohort to `main_path` where `generate: phantom` asks for it.

    Raises:
        DataError, OutputError: as `write_phantoms`.
    """
    if datasets.generate == "phantom":
        folder = Path(datasets.main_path).expanduser()
        with console.progress(f"phantom cohort in {folder}") as tick:
            write_phantoms(folder, progress=tick)


def write_phantoms(
    folder: Path,
    cohort: PhantomCohort | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a phantom cohort, or only the files of it that are missing.

    `source_T1w/` holds T1-like volumes in the coarse protocol, `target_T2w/` T2-like
    ones of other subjects in the fine protocol, and `target_T2w_hdf5/` and
    `target_T2w_hdf5_single/` the target's volumes again as HDF5. Every file is written
    whole or not at all; `phantom.json` is the last one, so that the next call completes
    an interrupted one. No file that differs is ever overwritten.

    Args:
        folder: made if missing.
        cohort: its parameters; None is the defaults.
        progress: called with (volumes done, volumes in all) after each volume.

    Raises:
        DataError: the folder holds a cohort of other parameters, or a file of that
            name with other content.
        OutputError: the folder cannot be written (full disk, no permission).
    """
    cohort = cohort or PhantomCohort()
    complete = _is_described(folder, cohort.to_dict())
    counts = {SOURCE: cohort.source_subjects, TARGET: cohort.target_subjects}
    volumes = [(part, n, side) for part in counts for n in range(counts[part]) for side in SIDES]
    for done, (part, number, side) in enumerate(volumes, start=1):
        paths = _paths(folder, part, number, side)
        if not complete or not all(path.exists() for path in paths):
            grid = (cohort.shape_vox, cohort.spacing_mm)
            contrast: Contrast = "T1w" if part == SOURCE else "T2w"
            subject = number if part == SOURCE else number + _TARGET_OFFSET
            phantom = make_phantom(cohort.seed, subject, side, contrast, *grid)
            for path, content in zip(paths, _encode_files(phantom, part), strict=True):
                _write_once(path, content)
        if progress is not None:
            progress(done, len(volumes))
    _write_once(folder / DESCRIPTION, (json.dumps(cohort.to_dict(), indent=2) + "\n").encode())


def _is_described(folder: Path, description: Mapping[str, Any]) -> bool:
    """Whether `phantom.json` exists; refuses one that describes another cohort."""
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        found = {"unreadable": str(error)}
    if found == description:
        return True
    found = found if isinstance(found, dict) else {}
    differing = sorted(k for k in {*found, *description} if found.get(k) != description.get(k))
    raise DataError(
        "the folder holds a phantom cohort made with other parameters",
        file=path,
        found=", ".join(f"{key}: {found.get(key)}" for key in differing),
        expected=", ".join(f"{key}: {description.get(key)}" for key in differing),
        fix="name another folder, or remove this one to make the cohort again",
    )


def _paths(folder: Path, part: str, number: int, side: Side) -> tuple[Path, ...]:
    """The files of one volume, in the order of `_encode_files`."""
    subject = f"{'S' if part == SOURCE else 'T'}{number + 1:02d}"
    stem = folder / part / f"sub-{subject}" / f"sub-{subject}_hemi-{side}"
    image = Path(f"{stem}_{'T1w' if part == SOURCE else 'T2w'}.nii.gz")
    label = Path(f"{stem}_dseg.nii.gz")
    if part == SOURCE:
        return image, label
    return (
        image,
        label,
        folder / TARGET_HDF5 / f"vol_{subject}_{side}_im.h5",
        folder / TARGET_HDF5 / f"vol_{subject}_{side}_seg.h5",
        folder / TARGET_HDF5_SINGLE / f"vol_{subject}_{side}.h5",
    )


def _encode_files(phantom: Phantom, part: str) -> Iterator[bytes]:
    """The bytes of one volume's files: int16 image and uint8 label, per format."""
    image = np.clip(np.rint(phantom.image), 0, np.iinfo(np.int16).max).astype(np.int16)
    protocol = PROTOCOLS["coarse" if part == SOURCE else "fine"]
    label = protocol.encode(phantom.subfields, phantom.axis_position)
    yield _encode_nifti(image, phantom.affine)
    yield _encode_nifti(label, phantom.affine)
    if part == TARGET:
        yield _encode_hdf5({"main": image}, phantom.affine)
        yield _encode_hdf5({"main": label}, phantom.affine)
        yield _encode_hdf5({"image": image, "label": label}, phantom.affine)


def _encode_nifti(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """A gzipped NIfTI-1 file whose qform and sform agree (both "scanner")."""
    nifti = nib.Nifti1Image(volume, affine)
    nifti.set_sform(affine, code="scanner")
    nifti.set_qform(affine, code="scanner")
    nifti.header.set_xyzt_units("mm", "sec")
    # Without a time stamp, the same volume gives the same bytes.
    return gzip.compress(nifti.to_bytes(), compresslevel=4, mtime=0)


def _encode_hdf5(volumes: Mapping[str, npt.NDArray[Any]], affine: npt.NDArray[np.float64]) -> bytes:
    """An HDF5 file of datasets with their geometry as attributes."""
    import h5py  # imported late: few runs are of phantoms

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, volume in volumes.items():
            dataset = file.create_dataset(key, data=volume, compression="gzip")
            dataset.attrs["spacing_mm"] = np.linalg.norm(affine[:3, :3], axis=0)
            dataset.attrs["affine"] = affine
    return buffer.getvalue()


def _write_once(path: Path, content: bytes) -> None:
    """Writes a file in one step, unless it exists; refuses to change its content."""
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    elif not path.is_file() or path.read_bytes() != content:
        raise DataError(
            "a file of the phantom cohort's name exists with other content",
            file=path,
            fix="name another folder, or remove this one to make the cohort again",
        )
