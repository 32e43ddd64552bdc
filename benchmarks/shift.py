"""How much a margin around a scan changes what a model finds.

    python benchmarks/shift.py RUN --data ../shared/data/msd_hippocampus --threads 1

Crops of MSD's hippocampus get a margin of some voxels on one face at a time. A margin of one value holds
nothing: it should change nothing. Noise, as in air around a head, is more than the crops that the model was
trained on, and shows how it copes with another field of view. Scores are means over validation and extra
subjects; the test subjects are left for the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from rows import show, write

from hsf_finetune.inference.predictor import Predictor

Array = npt.NDArray[Any]
FACES = [(axis, side) for axis in range(3) for side in (0, 1)]
NOISE_SHARE = 0.05
"""Standard deviation of noise in a margin, as a share of the scan's brightest voxels."""


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    split = json.loads((options.data / "split.json").read_text())
    names = [*split["validation"], *split["extra"]][: options.cases]
    model = Predictor.load(options.run, device="cpu")
    plain = [np.mean([dice(model, options.data, name) for name in names])]
    rows: list[dict[str, object]] = [
        {
            "margin": "none",
            "voxels": 0,
            "dice": round(float(plain[0]), 4),
            "change": 0.0,
            "worst": 0.0,
        }
    ]
    for kind in options.kinds:
        for width in options.widths:
            scores = [
                np.mean([dice(model, options.data, name, kind, width, face) for name in names])
                for face in FACES
            ]
            changes = np.array(scores) - plain[0]
            rows.append(
                {
                    "margin": kind,
                    "voxels": width,
                    "dice": round(float(np.mean(scores)), 4),
                    "change": round(float(changes.mean()), 4),
                    "worst": round(float(changes[np.abs(changes).argmax()]), 4),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    show(f"Margins on one face at a time, {len(names)} scans", rows)
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run on MSD's hippocampus")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--cases", type=int, default=104, help="use so many scans")
    parser.add_argument("--widths", type=numbers, default=[1, 2, 4, 8], help="such as 1,8")
    parser.add_argument("--kinds", type=words, default=["zeros", "minimum", "noise"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    return text.split(",")


def dice(
    model: Predictor,
    data: Path,
    name: str,
    kind: str = "zeros",
    width: int = 0,
    face: tuple[int, int] = (0, 0),
) -> float:
    """Mean Dice of a scan with a margin on one face; what is found in the margin counts as wrong."""
    scan = nib.nifti1.load(data / "imagesTr" / f"{name}.nii.gz")
    image = scan.get_fdata(dtype=np.float32)
    label = np.asarray(nib.nifti1.load(data / "labelsTr" / f"{name}.nii.gz").dataobj)
    axis, side = face
    widths = [(0, 0)] * 3
    widths[axis] = (width, 0) if side == 0 else (0, width)
    wide, affine = np.pad(image, widths), scan.affine.copy()
    if kind == "minimum":
        wide = np.pad(image, widths, constant_values=image.min())
    elif kind == "noise":
        random = np.random.default_rng(0)
        spread = NOISE_SHARE * np.percentile(image, 99)
        parts = random.normal(0, spread, (2, *wide.shape))
        outside = np.pad(np.zeros(image.shape), widths, constant_values=1) > 0
        wide = np.where(outside, np.hypot(*parts), wide).astype(np.float32)
    affine[:3, 3] -= affine[:3, axis] * widths[axis][0]
    found = model.predict((wide, affine)).labels
    return float(np.mean(list(class_dice(found, np.pad(label, widths)))))


def class_dice(found: Array, label: Array) -> Iterator[float]:
    for value in (1, 2):
        one, other = found == value, label == value
        yield 2 * (one & other).sum() / (one.sum() + other.sum())


if __name__ == "__main__":
    main()
