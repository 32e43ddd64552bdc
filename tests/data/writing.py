"""Small volumes on disk, and the descriptions of datasets made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import nibabel as nib
import numpy as np

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap

SHAPE = (10, 9, 8)
AFFINE = np.array([[0.8, 0, 0, -4], [0, 0.9, 0, 5], [0, 0, 1.1, 6], [0, 0, 0, 1]], dtype=float)
NAMES = {1: "DG", 2: "CA1"}
SPACE = ClassSpace((BACKGROUND, "DG", "CA1"))
PROTOCOL = LabelMap.from_sets(SPACE, {1: ["DG"], 2: ["CA1"]})


def scan(seed: int = 0, shape: Sequence[int] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def blobs(shape: Sequence[int] = SHAPE) -> np.ndarray[Any, Any]:
    """Two boxes of values 1 and 2, far from the borders."""
    label = np.zeros(shape, dtype=np.uint8)
    x, y, z = (n // 2 for n in shape)
    label[x - 2 : x, y - 2 : y + 2, z - 2 : z + 2] = 1
    label[x : x + 2, y - 2 : y + 2, z - 2 : z + 2] = 2
    return label


def nifti(path: Path, array: Any = None, affine: Any = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(scan() if array is None else array, affine), path)
    return path


def hdf5(
    path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
            file[key].attrs.update(attributes or {})
    return path


def pair(folder: Path, image: str, label: str) -> None:
    """An image and its label as NIfTI files, other ones for each name of an image."""
    seed = crc32(image.encode())
    nifti(folder / image, scan(seed))
    shift = (seed % 7 - 3, seed // 7 % 6 - 2, seed // 42 % 5 - 2)
    nifti(folder / label, np.roll(blobs(), shift, axis=(0, 1, 2)))


def settings(
    main: Path, patterns: Mapping[str, Mapping[str, Any]], **more: Any
) -> DatasetsSettings:
    """One dataset `lab` in `main` itself; `more` belongs to the dataset."""
    return several(main, lab={"path": ".", "patterns": patterns, **more})


def several(main: Path, **datasets: Mapping[str, Any]) -> DatasetsSettings:
    described = {name: {"labels_names": NAMES, **given} for name, given in datasets.items()}
    return DatasetsSettings.model_validate({"main_path": str(main), "datasets": described})


def minimal_settings(**given: Any) -> DatasetsSettings:
    """The `datasets` group with one dataset, whose files are never looked for."""
    lab = {"path": ".", "patterns": {"t2": {"mri": "*"}}, "labels_names": NAMES}
    return DatasetsSettings.model_validate({"datasets": {"lab": lab}, **given})


def case(folder: Path, name: str, seed: int = 0, shape: Sequence[int] = SHAPE) -> Case:
    """A case on disk: a random image and two boxes."""
    image = nifti(folder / f"{name}.nii.gz", scan(seed, shape))
    label = nifti(folder / f"{name}_seg.nii.gz", blobs(shape))
    return Case(name, name, "lab", (VolumeRef(image),), VolumeRef(label), PROTOCOL)
