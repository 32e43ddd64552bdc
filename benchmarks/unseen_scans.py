"""Remarks of `predict` on scans that a model has never seen the like of, and on ordinary ones.

    python benchmarks/unseen_scans.py --data ../shared/data/msd_hippocampus --threads 1

A small network is trained for a minute or two on the `pretrain` subjects. Scans of `extra` subjects are
then changed: other voxel sizes, a scan of head size, inverted contrast, noise, nothing at all, another
organ. Each of these should get a remark, and the unchanged ones beside them none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from rows import show, write
from scipy import ndimage

from hsf_finetune.config.compose import compose
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system.errors import DataError

Array = npt.NDArray[Any]
Scan = tuple[Array, Array]
"""An image, (X, Y, Z), and its affine."""

NETWORK = (
    "models.channels=[8,16,32]",
    "models.strides=[2,2]",
    "models.features=8",
    "models.num_res_units=1",
    "models.lr=3e-3",
)


def resampled(spacing_mm: float) -> Callable[[Scan, np.random.Generator], Scan]:
    def change(scan: Scan, random: np.random.Generator) -> Scan:
        image, affine = scan
        ratio = np.array([spacing_mm, spacing_mm, spacing_mm, 1.0])
        return ndimage.zoom(image, 1 / spacing_mm, order=1), affine * ratio

    return change


def head_sized(scan: Scan, random: np.random.Generator) -> Scan:
    """Several crops beside each other, as wide as a head."""
    image, affine = scan
    pair = np.concatenate([image, image[::-1]])
    return np.tile(pair, (2, 3, 4))[:140, :150, :140], affine


def inverted(scan: Scan, random: np.random.Generator) -> Scan:
    return scan[0].max() - scan[0], scan[1]


def noise(scan: Scan, random: np.random.Generator) -> Scan:
    shape = scan[0].shape
    kinds = (
        300 + 100 * random.normal(size=shape),
        np.abs(random.normal(size=shape) + 1j * random.normal(size=shape)),
        random.uniform(0, 255, shape),
        ndimage.gaussian_filter(random.normal(size=shape), 1.0),
    )
    return kinds[random.integers(len(kinds))].astype(np.float32), scan[1]


def empty(scan: Scan, random: np.random.Generator) -> Scan:
    """Zeros, with a little noise in some of them, or a few voxels."""
    image = np.zeros(scan[0].shape, np.float32)
    kind = random.integers(3)
    if kind == 1:
        image += 1e-3 * random.normal(size=image.shape)
    elif kind == 2:
        image[tuple(np.array(image.shape) // 2)] = 1
        image[tuple(np.array(image.shape) // 3)] = 2
    return image, scan[1]


def other_organ(scan: Scan, random: np.random.Generator) -> Scan:
    """Tissues of other shapes and brightness, as sharp as the scan."""
    shape = scan[0].shape
    field = ndimage.gaussian_filter(random.normal(size=shape), random.uniform(3, 6))
    tissue = np.digitize(field, np.percentile(field, [30, 60, 85]))
    texture = ndimage.gaussian_filter(random.normal(size=shape), 0.7)
    return (100 + 120 * tissue + 30 * texture).astype(np.float32), scan[1]


KINDS: dict[str, tuple[int, Callable[[Scan, np.random.Generator], Scan]]] = {
    ".4 mm": (5, resampled(0.4)),
    ".5 mm": (5, resampled(0.5)),
    "2 mm": (5, resampled(2.0)),
    "head size": (4, head_sized),
    "inverted contrast": (6, inverted),
    "noise": (6, noise),
    "empty": (4, empty),
    "other organ": (5, other_organ),
    "like the training data": (40, lambda scan, random: scan),
}
"""Kind -> number of scans, and how they come about."""


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads((options.data / "split.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or train(options, split, Path(folder))
        model = Predictor.load(run, device="cpu")
        rows = [measure(model, options.data, split["extra"], kind, options.share) for kind in KINDS]
    show("Scans with a remark", rows)
    unseen = rows[:-1]
    print(f"unseen: {sum(r['flagged'] for r in unseen)} of {sum(r['scans'] for r in unseen)}")
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--run", type=Path, help="folder of a run, instead of training one")
    parser.add_argument("--steps", type=int, default=400, help="of training, two crops each")
    parser.add_argument("--share", type=float, default=1.0, help="of the scans of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def train(options: argparse.Namespace, split: dict[str, Any], work: Path) -> Path:
    """The folder of a run on the `pretrain` subjects."""
    cases = {"train": split["pretrain"], "validation": split["validation"]}
    file = work / "split.json"
    file.write_text(
        json.dumps({k: [f"msd_hippocampus__imagesTr__{c}" for c in v] for k, v in cases.items()})
    )
    settings = compose(
        "train",
        [
            "datasets=msd_hippocampus",
            f"datasets.main_path={options.data.resolve()}",
            f"datasets.output_path={work}",
            f"datasets.split_file={file}",
            "datasets.patch_vox=[32,48,32]",
            f"datasets.k_sample={2 * 20}",
            f"lightning.max_epochs={options.steps // 20}",
            f"lightning.check_val_every_n_epoch={options.steps // 40}",
            "lightning.accelerator=cpu",
            f"lightning.threads={options.threads}",
            "lightning.forecast=false",
            "augmentation.flip=false",
            "logger=csv",
            *NETWORK,
        ],
    )
    return run_experiment(settings).folder


def measure(
    model: Predictor, data: Path, names: list[str], kind: str, share: float
) -> dict[str, Any]:
    """How many scans of a kind get a remark, and which ones."""
    number, change = KINDS[kind]
    number = max(round(share * number), 1)
    remarks: Counter[str] = Counter()
    flagged = 0
    for name, seed in zip(names, range(number), strict=False):
        stored = nib.nifti1.load(data / "imagesTr" / f"{name}.nii.gz")
        scan = (stored.get_fdata(dtype=np.float32), stored.affine)
        try:
            kinds = {
                f.kind for f in model.predict(change(scan, np.random.default_rng(seed))).warnings
            }
        except DataError:
            kinds = {"refused"}
        flagged += bool(kinds)
        remarks.update(kinds)
    text = ", ".join(f"{kind} {count}" for kind, count in remarks.most_common())
    return {"kind": kind, "scans": number, "flagged": flagged, "remarks": text}


if __name__ == "__main__":
    main()
