"""Ways in which bundles prepare scans, apply their network and return its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import axcodes2ornt, ornt_transform

Step = dict[str, Any]
ORDERS = ("RAS", "LPS", "LAS", "PIR", "SAR", "IPL")
ENDS = [["L", "R"], ["P", "A"], ["I", "S"]]
CT_LEVELS, MRI_LEVELS = (40.0, 160.0, -60.0), (300.0, 520.0, 120.0)


def step(target: str, **given: Any) -> Step:
    return {"_target_": target, "keys": "image"} | given


class Pipeline(NamedTuple):
    """The transforms before a network, how it is applied, and the transforms behind it."""

    before: Sequence[Step]
    inferer: Mapping[str, Any]
    nearest: bool = False
    is_ct: bool = False

    def config(self) -> dict[str, Any]:
        """The entries of a bundle's configuration, as `monai.bundle run` takes them."""
        loading = (step("LoadImaged"), step("EnsureChannelFirstd"), step("EnsureTyped"))
        back = step("Invertd", transform="@preprocessing", orig_keys="image")
        after = [
            step("Activationsd", softmax=True),
            back | {"nearest_interp": self.nearest},
            step("AsDiscreted", argmax=True),
            step(
                "SaveImaged",
                output_dir="@output_dir",
                separate_folder=False,
                resample=False,
                output_dtype="$np.uint8",
            ),
        ]
        after = [one | {"keys": "pred"} for one in after]
        return {
            "imports": ["$import glob", "$import numpy as np"],
            "bundle_root": ".",
            "dataset_dir": ".",
            "output_dir": "out",
            "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
            "preprocessing": {"_target_": "Compose", "transforms": [*loading, *self.before]},
            "dataset": {
                "_target_": "Dataset",
                "data": "$[{'image': i} for i in @datalist]",
                "transform": "@preprocessing",
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
            "inferer": dict(self.inferer),
            "postprocessing": {"_target_": "Compose", "transforms": after},
            "handlers": [
                {
                    "_target_": "CheckpointLoader",
                    "load_path": "$@bundle_root + '/models/model.pt'",
                    "load_dict": {"model": "@network"},
                }
            ],
            "evaluator": {
                "_target_": "SupervisedEvaluator",
                "device": "@device",
                "val_data_loader": "@dataloader",
                "network": "@network",
                "inferer": "@inferer",
                "postprocessing": "@postprocessing",
                "val_handlers": "@handlers",
            },
            "run": ["$@evaluator.run()"],
        }


def orientation(axcodes: str) -> Step:
    return step("Orientationd", axcodes=axcodes, labels=ENDS)


def sliding(*roi_size: int, **given: Any) -> Step:
    return {"_target_": "SlidingWindowInferer", "roi_size": list(roi_size), **given}


SIMPLE = {"_target_": "SimpleInferer"}
WINDOW = step("ScaleIntensityRanged", a_min=-250, a_max=400, b_min=0, b_max=1, clip=True)
CROP = step("CropForegroundd", source_key="image")
SPACING = step("Spacingd", pixdim=[1.5, 1.2, 2.0], mode="bilinear")
NORMAL = step("NormalizeIntensityd", nonzero=True, channel_wise=True)
PERCENTILES = step(
    "ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=0, b_max=1, clip=True, relative=True
)
PIPELINES: dict[str, Pipeline] = {
    "MRI, z-score where not 0": Pipeline(
        [orientation("RAS"), SPACING, NORMAL], sliding(24, 24, 16, overlap=0.5, mode="gaussian")
    ),
    "CT, window, crop behind it": Pipeline(
        [orientation("LPS"), SPACING, WINDOW, CROP], sliding(24, 20, 16, overlap=0.625), is_ct=True
    ),
    "CT, window and crop before spacing": Pipeline(
        [WINDOW, CROP, orientation("RAS"), SPACING],
        sliding(20, 24, 28, mode="gaussian", sigma_scale=0.2, padding_mode="replicate"),
        is_ct=True,
    ),
    "crop after spacing, percentiles": Pipeline(
        [
            orientation("RAI"),
            SPACING,
            CROP | {"select_fn": "$lambda x: x != 0", "margin": 3, "allow_smaller": True},
            PERCENTILES,
            step("SpatialPadd", spatial_size=[32, 40, 28], mode="reflect"),
        ],
        sliding(32, 40, 28, overlap=[0.25, 0.25, 0.25]),
    ),
    "percentiles, in one piece": Pipeline(
        [orientation("RAS"), CROP, PERCENTILES, SPACING, step("DivisiblePadd", k=[8, 16, 8])],
        SIMPLE,
    ),
    "smallest to largest, in one piece": Pipeline(
        [
            orientation("LAS"),
            step("ScaleIntensityd", minv=-1, maxv=1),
            step("DivisiblePadd", k=8, method="end"),
        ],
        SIMPLE,
    ),
    "two steps, nearest voxels": Pipeline(
        [orientation("RAS"), SPACING, NORMAL, step("ScaleIntensityd", minv=-1.0, maxv=1.0)],
        sliding(24, 24, 24, overlap=0.25, mode="gaussian", padding_mode="replicate"),
        nearest=True,
    ),
}


def phantom(
    rng: np.random.Generator, spacing_mm: Sequence[float], is_ct: bool, size_mm: float = 1.0
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """A head or body with two structures, and nothing or air around; stored as RAS."""
    whole = size_mm * np.array([38.0, 46.0, 42.0])
    shape = np.round(whole / spacing_mm).astype(int)
    axes = (np.arange(n) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    where = np.stack(np.meshgrid(*axes, indexing="ij"), -1) - whole / 2 - rng.uniform(-1.5, 1.5, 3)

    def within(*radii: float) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = ((where / (size_mm * np.array(radii))) ** 2).sum(-1) < 1
        return inside

    label = np.where(within(8, 12, 8), np.where(where[..., 1] > 0, 1, 2), 0).astype(np.uint8)
    image = np.array(CT_LEVELS if is_ct else MRI_LEVELS)[label] + rng.normal(0, 12, shape)
    outside = rng.normal(-1000, 5, shape) if is_ct else 0.0
    image = np.where(within(14, 18, 16), image, outside).astype(np.int16)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-11.0, 4.5, 7.25)
    return nib.Nifti1Image(image, affine), nib.Nifti1Image(label, affine)


def stored(image: nib.Nifti1Image, order: str) -> nib.Nifti1Image:
    """The same image with its axes in another order."""
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(order)))


def save_scans(folder: Path, is_ct: bool, orders: Sequence[str] = ORDERS) -> list[Path]:
    """Scans of two voxel sizes, the second one smaller, each in several storage orders."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    for number, spacing in enumerate(((1.0, 1.1, 1.3), (1.7, 1.2, 2.4))):
        image, _ = phantom(rng, spacing, is_ct, 1.0 - 0.3 * number)
        for order in orders:
            nib.save(stored(image, order), folder / f"{order}{number}.nii.gz")
    return sorted(folder.iterdir())
