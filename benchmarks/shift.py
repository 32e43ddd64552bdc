"""How much a margin around a scan changes what a model finds.

    python benchmarks/msd_hippocampus.py --work RUNS
    python benchmarks/shift.py RUNS/*_fine-tuned_* --threads 1

Crops of MSD's hippocampus get a margin of some voxels on one face at a time. A margin of one value holds
nothing: it should change nothing. A nearly constant one (0 or 1 where tissue has hundreds) and noise, as in air
around a head, are more than the crops that the models were trained on, and show how they cope with another
field of view. `end` is no margin, with padding at the end as in version 0.1.0. Scores are means over
validation and extra subjects; the test subjects are left for the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
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
    rows: list[dict[str, object]] = []
    for run in options.runs:
        model = Predictor.load(run, device="cpu")
        plain = scores(model, options.data, names)
        for kind, width in [("none", 0), ("end", 0), *product(options.kinds, options.widths)]:
            if kind == "none":
                found = [plain]
            elif kind == "end":
                found = [scores(padded_at_end(model), options.data, names)]
            else:
                found = [scores(model, options.data, names, kind, width, face) for face in FACES]
            changes = np.array(found) - plain
            rows.append(
                {
                    "run": run.name,
                    "margin": kind,
                    "voxels": width,
                    "dice": round(float(np.mean(found)), 4),
                    "change": round(float(changes.mean()), 4),
                    "worst": round(float(changes[np.abs(changes).argmax()]), 4),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    show(f"Margins on one face at a time, {len(names)} scans", rows)
    write(options.json, rows)


def scores(model: Predictor, data: Path, names: list[str], *margin: Any) -> float:
    """Mean Dice over scans with a margin."""
    return float(np.mean([dice(model, data, name, *margin) for name in names]))


def padded_at_end(model: Predictor) -> Predictor:
    """The same weights, with volumes padded as in version 0.1.0."""
    how = model.card.preprocessing.model_copy(update={"padding": "end", "crop": "none"})
    return Predictor(model.anatomy, replace(model.card, preprocessing=how), torch.device("cpu"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs on MSD's hippocampus")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--cases", type=int, default=104, help="use so many scans")
    parser.add_argument("--widths", type=numbers, default=[1, 2, 4, 8], help="such as 1,8")
    parser.add_argument("--kinds", type=words, default=["zeros", "minimum", "nearly", "noise"])
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
    outside = np.pad(np.zeros(image.shape, bool), widths, constant_values=True)
    if kind == "minimum":
        wide = np.pad(image, widths, constant_values=image.min())
    elif kind == "nearly":
        wide[outside] = np.random.default_rng(0).integers(0, 2, outside.sum())
    elif kind == "noise":
        random = np.random.default_rng(0)
        spread = NOISE_SHARE * np.percentile(image, 99)
        parts = random.normal(0, spread, (2, *wide.shape))
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
