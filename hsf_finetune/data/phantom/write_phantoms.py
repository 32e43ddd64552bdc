"""A cohort of phantoms with known subfields, as NIfTI and HDF5.

It makes every command of the package runnable without patient data: a source of
T1-like volumes in six classes and a target of T2-like ones in eight, deterministic
by seed and subject number.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt

from hsf_finetune.data.phantom.phantom_image import CONTRASTS, Contrast, Phantom, make_phantom
from hsf_finetune.data.phantom.phantom_protocol import PROTOCOLS, Protocol, Rule
from hsf_finetune.data.phantom.phantom_shape import SIDES, SUBFIELDS, Side
from hsf_finetune.system.errors import ConfigError, DataError, OutputError

__all__ = [
    "CONTRASTS",
    "PROTOCOLS",
    "SIDES",
    "SUBFIELDS",
    "Contrast",
    "Phantom",
    "Protocol",
    "Rule",
    "Side",
    "is_phantom",
    "make_phantom",
    "write_cohort",
]

VERSION = 1
"""Raised whenever the same parameters give other volumes or files."""
DESCRIPTION = "phantom.json"
SOURCE, TARGET = "source_T1w", "target_T2w"
TARGET_HDF5, TARGET_HDF5_SINGLE = "target_T2w_hdf5", "target_T2w_hdf5_single"
_KIND = "hsf_finetune phantom cohort"
_TARGET_OFFSET = 1000  # target subjects are other people than source subjects


def is_phantom(folder: Path) -> bool:
    """Whether a folder holds a complete phantom cohort of this version."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(description, dict)
        and description.get("kind") == _KIND
        and description.get("version") == VERSION
    )


def write_cohort(
    folder: Path,
    seed: int = 0,
    source_subjects: int = 12,
    target_subjects: int = 8,
    shape_vox: tuple[int, int, int] = (40, 56, 40),
    spacing_mm: float = 0.8,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the phantom cohort, or leaves it alone where it is already there.

    `source_T1w/` holds T1-like volumes in the coarse protocol, `target_T2w/` T2-like
    ones of other subjects in the fine protocol, and `target_T2w_hdf5/` and
    `target_T2w_hdf5_single/` the target's volumes again as HDF5. Every file appears
    whole or not at all; `phantom.json` comes last, so an interrupted call is finished
    by the next one. No file that differs is ever overwritten.

    Args:
        folder: where to; made if missing.
        seed: seed of the cohort, not negative.
        source_subjects: number of source subjects, two volumes (sides) each.
        target_subjects: number of target subjects, two volumes (sides) each.
        shape_vox: size of every volume.
        spacing_mm: voxel size of every volume.
        progress: called with (volumes done, volumes in all) after each volume.

    Raises:
        ConfigError: a count or the seed is out of range.
        DataError: the folder holds a cohort of other parameters, or a file of that
            name with other content.
        OutputError: the folder cannot be written (full disk, no permission).
    """
    if min(source_subjects, target_subjects) < 1 or max(source_subjects, target_subjects) > 999:
        raise ConfigError(
            "a phantom cohort has 1 to 999 source and target subjects",
            found=f"{source_subjects} source, {target_subjects} target",
        )
    if seed < 0:
        raise ConfigError("a phantom cohort's seed must not be negative", found=seed)
    description = _description(seed, source_subjects, target_subjects, shape_vox, spacing_mm)
    jobs = [
        *((SOURCE, number, side) for number in range(source_subjects) for side in SIDES),
        *((TARGET, number, side) for number in range(target_subjects) for side in SIDES),
    ]
    there = _described(folder, description)
    for done, (cohort, number, side) in enumerate(jobs, start=1):
        if not there or not all(path.exists() for path in _paths(folder, cohort, number, side)):
            contrast: Contrast = "T1w" if cohort == SOURCE else "T2w"
            subject = number if cohort == SOURCE else number + _TARGET_OFFSET
            phantom = make_phantom(seed, subject, side, contrast, shape_vox, spacing_mm)
            contents = _contents(phantom, cohort)
            for path, data in zip(_paths(folder, cohort, number, side), contents, strict=True):
                _place(path, data)
        if progress is not None:
            progress(done, len(jobs))
    _place(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())


def _description(
    seed: int,
    source_subjects: int,
    target_subjects: int,
    shape_vox: tuple[int, int, int],
    spacing_mm: float,
) -> dict[str, Any]:
    """What `phantom.json` says of a cohort, as JSON gives it back."""
    names = {SOURCE: PROTOCOLS["coarse"].labels_names, TARGET: PROTOCOLS["fine"].labels_names}
    return {
        "kind": _KIND,
        "version": VERSION,
        "seed": seed,
        "source_subjects": source_subjects,
        "target_subjects": target_subjects,
        "shape_vox": list(shape_vox),
        "spacing_mm": spacing_mm,
        "labels_names": {
            cohort: {str(value): name for value, name in labels.items()}
            for cohort, labels in names.items()
        },
    }


def _described(folder: Path, description: Mapping[str, Any]) -> bool:
    """Whether `phantom.json` is there; it must then describe the same cohort."""
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
        fix="name another folder, or remove this one to make the cohort anew",
    )


def _paths(folder: Path, cohort: str, number: int, side: Side) -> tuple[Path, ...]:
    """The files of one volume, in the order of `_contents`."""
    if cohort == SOURCE:
        subject = f"sub-S{number + 1:02d}"
        stem = folder / SOURCE / subject / f"{subject}_hemi-{side}"
        return Path(f"{stem}_T1w.nii.gz"), Path(f"{stem}_dseg.nii.gz")
    subject = f"T{number + 1:02d}"
    stem = folder / TARGET / f"sub-{subject}" / f"sub-{subject}_hemi-{side}"
    return (
        Path(f"{stem}_T2w.nii.gz"),
        Path(f"{stem}_dseg.nii.gz"),
        folder / TARGET_HDF5 / f"vol_{subject}_{side}_im.h5",
        folder / TARGET_HDF5 / f"vol_{subject}_{side}_seg.h5",
        folder / TARGET_HDF5_SINGLE / f"vol_{subject}_{side}.h5",
    )


def _contents(phantom: Phantom, cohort: str) -> Iterator[bytes]:
    """The bytes of one volume's files: int16 image and uint8 label, per format."""
    image = np.clip(np.rint(phantom.image), 0, np.iinfo(np.int16).max).astype(np.int16)
    protocol = PROTOCOLS["coarse" if cohort == SOURCE else "fine"]
    label = protocol.encode(phantom.subfields, phantom.axis_position)
    yield _nifti(image, phantom.affine)
    yield _nifti(label, phantom.affine)
    if cohort == TARGET:
        yield _hdf5({"main": image}, phantom.affine)
        yield _hdf5({"main": label}, phantom.affine)
        yield _hdf5({"image": image, "label": label}, phantom.affine)


def _nifti(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """A gzipped NIfTI-1 file whose qform and sform agree (both "scanner")."""
    nifti = nib.Nifti1Image(volume, affine)
    nifti.set_sform(affine, code="scanner")
    nifti.set_qform(affine, code="scanner")
    nifti.header.set_xyzt_units("mm", "sec")
    # Without a time stamp, the same volume gives the same bytes.
    return gzip.compress(nifti.to_bytes(), compresslevel=4, mtime=0)


def _hdf5(volumes: Mapping[str, npt.NDArray[Any]], affine: npt.NDArray[np.float64]) -> bytes:
    """An HDF5 file of datasets with their geometry as attributes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, volume in volumes.items():
            dataset = file.create_dataset(key, data=volume, compression="gzip")
            dataset.attrs["spacing_mm"] = np.linalg.norm(affine[:3, :3], axis=0)
            dataset.attrs["affine"] = affine
    return buffer.getvalue()


def _place(path: Path, data: bytes) -> None:
    """Writes a file in one step, unless it is there with the same content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists():
            if path.read_bytes() == data:
                return
            raise DataError(
                "a file that is not this phantom's is in the way",
                file=path,
                fix="name another folder, or remove this one to make the cohort anew",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            "the phantom cohort could not be written",
            file=path,
            found=error.strerror or str(error),
            fix="make room or name a folder that you may write to",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
