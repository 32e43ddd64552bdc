"""A tiny cohort on disk, and a source model trained on it once, through the real entry point."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib.figure import Figure

from hsf_finetune.schedule.display import schedule_picture
from hsf_finetune.training import validation_picture

CONF = Path(__file__).parent / "conf"
SUBJECTS = 5
SHAPE = (16, 24, 16)
NETWORK = (
    "models.channels=[4,8]",
    "models.strides=[2]",
    "models.features=4",
    "models.num_res_units=1",
)
FAST = (
    *NETWORK,
    "logger=csv",
    "report=off",
    "quality=off",
    "augmentation=none",
    "datasets.few_subjects=0",
    "lightning.forecast=false",
    "lightning.threads=1",
    "lightning.accelerator=cpu",
    "lightning.precision=32-true",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of modules that compare up to rounding with `exactness`."""
    for item in items:
        if hasattr(getattr(item, "module", None), "assert_equal_up_to_rounding"):
            item.add_marker("exactness")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the user's cache out of the tests, those in subprocesses included."""
    threads = os.environ.get("HSF_FINETUNE_TEST_THREADS", "1")
    torch.set_num_threads(int(threads))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSF_FINETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", threads)
        yield


@pytest.fixture(scope="session", autouse=True)
def _blank_pictures() -> Iterator[None]:
    """Runs of tests save empty figures, since drawing them takes half of the time of a tiny run.

    Tests of the pictures import what draws them, and runs in subprocesses draw them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_picture, "draw_schedule", lambda *_: Figure(figsize=(1, 1)))
        patch.setattr(validation_picture, "draw_first_case", lambda *_: Figure(figsize=(1, 1)))
        yield


def oblique_affine() -> npt.NDArray[np.float64]:
    """Left-posterior-superior axes, turned by 10 degrees, voxels of 0.8 x 1 x 1.2 mm."""
    angle = np.deg2rad(10)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.8, -1.0, 1.2])
    affine[:3, 3] = (12.5, -30.25, 7.0)
    return affine


def tiny_case(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """An ellipsoid whose front half is brighter: image and label (0, 10, 20), (16, 24, 16)."""
    rng = np.random.default_rng(seed)
    centre = np.array(SHAPE) / 2 + rng.uniform(-1.5, 1.5, 3)
    where = np.indices(SHAPE).transpose(1, 2, 3, 0) - centre
    inside = (where**2 / np.array([4.5, 8.0, 4.5]) ** 2).sum(axis=-1) < 1
    label = np.where(inside, np.where(where[..., 1] > 0, 10, 20), 0).astype(np.uint8)
    brightness = 100 + 100 * (label == 10) + 60 * (label == 20)
    return (brightness + rng.normal(0, 8, SHAPE)).astype(np.float32), label


def save_nifti(path: Path, array: npt.NDArray, affine: npt.NDArray | None = None) -> Path:
    """Writes a NIfTI with sform code 1 and qform code 2."""
    affine = oblique_affine() if affine is None else affine
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 2)
    nib.save(image, path)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the tiny cohort as NIfTI (`tiny`) and as HDF5 (`tiny_hdf5`); read only."""
    root = tmp_path_factory.mktemp("data")
    (root / "tiny_hdf5").mkdir()
    for number in range(1, SUBJECTS + 1):
        image, label = tiny_case(number)
        folder = root / "tiny" / f"sub-{number:02d}"
        save_nifti(folder / f"sub-{number:02d}_T2w.nii.gz", image)
        save_nifti(folder / f"sub-{number:02d}_dseg.nii.gz", label)
        with h5py.File(root / "tiny_hdf5" / f"vol_{number:02d}.h5", "w") as file:
            file.create_dataset("image", data=image)
            file.create_dataset("label", data=label)
            for name in ("image", "label"):
                file[name].attrs["affine"] = oblique_affine()
    return root


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny cohort that a test may damage."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Where runs of a test go; does not exist yet."""
    return tmp_path / "outputs"


@pytest.fixture(scope="session")
def source_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a model that knows one class, `blob`."""
    from hsf_finetune.config.compose import compose
    from hsf_finetune.experiment.run import run_experiment

    return run_experiment(
        compose(
            "train",
            [
                "datasets=tiny_source",
                f"datasets.main_path={data}",
                f"datasets.output_path={tmp_path_factory.mktemp('source')}",
                "lightning.max_epochs=4",
                "models.lr=1e-2",
                *FAST,
            ],
            CONF,
        )
    ).folder
