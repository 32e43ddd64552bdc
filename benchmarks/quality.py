"""Dice foretold beside true Dice, on scans that a model has not seen and on degraded copies of them.

    python benchmarks/quality.py RUN RUN --data ../shared/data/msd_hippocampus --side test

RUN is a folder of a finished run of `benchmarks/msd_hippocampus.py --work`. Each scan of the side is
segmented as it is, and once with a fault: noise, a bias field, motion, 2 mm slices, a shifted crop,
another contrast. The faults are computed here, by other means than those that the model's
expectations were fitted on. A run whose card cannot foretell Dice learns it first, on its own
validation cases.

Two columns tell what can be had at all. Four draws is the share above the bound where four subjects of
the side, drawn at random, take the place of the validation cases (mean, and 10 % and 90 % of the draws):
a model's own four may be easier than others. Another model is, with --other RUN, the rank correlation of
true Dice with the agreement with that run's segmentations: what a much better model would know of a scan,
without its truth. `--strength 2` makes faults twice as strong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from rows import Row, show, write
from scipy import ndimage
from scipy.stats import spearmanr

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.quality.fit_quality import QualityCase, fit_quality, measure_quality
from hsf_finetune.system.freed_memory import keep_freed_memory

Array = npt.NDArray[Any]
Scan = tuple[Array, Array, Array]
"""An image, its labels, both (X, Y, Z), and their affine."""
Fault = Callable[[Scan, np.random.Generator, int], Scan]
"""Of how strong a fault there is a copy of a scan; 1 is what scanners are known for."""
Change = Callable[[Array, np.random.Generator, int], Array]


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    names = json.loads((options.data / "split.json").read_text())[options.side]
    names = names[options.first : options.first + options.scans]
    other = Predictor.load(options.other, device="cpu") if options.other else None
    rows = [measure(run, other, options.data, names, options.strength) for run in options.runs]
    show(f"Dice foretold, {options.side} scans", rows)
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--side", default="test", help="key of split.json")
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="number of the first scan")
    parser.add_argument("--strength", type=int, default=1, help="of the faults, 1 or 2")
    parser.add_argument("--other", type=Path, metavar="RUN", help="a better model")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def measure(run: Path, other: Predictor | None, data: Path, names: list[str], strength: int) -> Row:
    """How well Dice is foretold."""
    started = time.process_time()
    model = with_quality(Predictor.load(run, device="cpu"), run)
    learning_s = time.process_time() - started
    true, expected, reached, worth, agreed = [], [], [], [], []
    known: list[QualityCase] = []
    started = time.process_time()
    for number, name in enumerate(names):
        scan = read(data, name)
        kind = [*FAULTS][number % len(FAULTS)]
        faulty = FAULTS[kind](scan, np.random.default_rng(number), strength)
        for copy, one in (("", scan), (kind, faulty)):
            found = model.predict((one[0], one[2]))
            dice = dice_of(found, found.labels, one[1])
            foretold = {line.class_name: line for line in found.foretold}
            sure = dict(zip(found.classes[1:], found.sureness, strict=True))
            known += [QualityCase(name, name, copy, key, dice[key], sure[key]) for key in dice]
            if other:
                theirs = other.predict((one[0], one[2])).labels
                agreed.append(np.mean([*dice_of(found, found.labels, theirs).values()] or [0.0]))
            true.append(np.mean([*dice.values()]))
            expected.append(foretold["mean"].dice)
            reached += [dice[key] >= foretold[key].low for key in dice]
            worth.append(true[-1] >= foretold["mean"].low)
    segmenting_s = (time.process_time() - started) / len(true)
    tenth = max(len(true) // 10, 1)
    worst, listed = ({*np.argsort(some)[:tenth].tolist()} for some in (true, expected))
    return {
        "run": run.name,
        "scans": len(true),
        "Dice": f"{np.mean(true[::2]):.3f}, {np.mean(true[1::2]):.3f}",
        "Spearman": round(float(spearmanr(expected, true)[0]), 3),
        "mean error": round(float(np.mean(np.abs(np.subtract(expected, true)))), 3),
        "above the bound": round(float(np.mean(reached)), 3),
        "mean above its bound": round(float(np.mean(worth)), 3),
        "four draws": draw_bounds(known),
        "another model": round(float(spearmanr(agreed, true)[0]), 3) if other else "",
        "worst tenth listed": f"{len(worst & listed)} of {tenth}",
        "CPU s a scan more": round(cost(model, read(data, names[0])), 3),
        "CPU s a scan": round(segmenting_s, 2),
        "CPU s to learn": round(learning_s, 1),
    }


def with_quality(model: Predictor, run: Path) -> Predictor:
    """The model, able to foretell Dice."""
    if model.card.quality:
        return model
    settings = read_settings_of(run)
    datasets = settings.datasets.model_copy(update={"split_file": str(run / "splits.json")})
    split = split_cases(discover(datasets, settings.models).cases, datasets, settings.seed)
    cases = measure_quality(model, split.validation, settings.seed)
    return model.with_card(replace(model.card, quality=fit_quality(cases)))


def dice_of(found: Segmentation, labels: Array, truth: Array) -> dict[str, float]:
    """Dice of each class that the truth has."""
    dice = {}
    for name in found.classes[1:]:
        predicted, true = (array == found.label_values[name] for array in (labels, truth))
        if true.any():
            dice[name] = 2 * int((predicted & true).sum()) / int(predicted.sum() + true.sum())
    return dice


def draw_bounds(known: list[QualityCase], count: int = 4, times: int = 50) -> str:
    """Share above the bound that is fitted on some of the subjects, of all others."""
    subjects, random = sorted({one.subject for one in known}), np.random.default_rng(0)
    shares = []
    for _ in range(times):
        drawn = {*random.choice(subjects, count, replace=False)}
        quality = fit_quality([one for one in known if one.subject in drawn])
        assert quality is not None
        others = [one for one in known if one.subject not in drawn]
        low = [quality.foretell([one.class_name], [one.sureness])[0].low for one in others]
        shares.append(np.mean([one.dice >= bound for one, bound in zip(others, low, strict=True)]))
    low_share, high_share = np.quantile(shares, [0.1, 0.9])
    return f"{np.mean(shares):.2f} ({low_share:.2f} to {high_share:.2f})"


def cost(model: Predictor, scan: Scan, times: int = 5) -> float:
    """CPU seconds that foretelling adds to a segmentation: the least of some."""
    volumes = model.read((scan[0], scan[2]))
    used: dict[bool, list[float]] = {False: [], True: []}
    for sure in (False, True) * times:
        started = time.process_time()
        _ = model.segment(volumes, sure=sure).foretold
        used[sure].append(time.process_time() - started)
    return min(used[True]) - min(used[False])


def read(data: Path, name: str) -> Scan:
    image = nib.nifti1.load(data / "imagesTr" / f"{name}.nii.gz")
    label = nib.nifti1.load(data / "labelsTr" / f"{name}.nii.gz")
    return image.get_fdata(dtype=np.float32), np.asarray(label.dataobj), image.affine


# ----------------------------------------------------------------------- faults
def of_image(change: Change) -> Fault:
    """A fault of the intensities alone."""

    def changed(scan: Scan, random: np.random.Generator, strength: int) -> Scan:
        return change(scan[0], random, strength).astype(np.float32), scan[1], scan[2]

    return changed


def noise(image: Array, random: np.random.Generator, strength: int) -> Array:
    std = strength * random.uniform(0.15, 0.8) * image.std()
    return np.asarray(np.abs(image + std * random.normal(size=image.shape)))


def bias_field(image: Array, random: np.random.Generator, strength: int) -> Array:
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in image.shape], indexing="ij"))
    field = np.tensordot(random.normal(size=3), place, 1)
    field += 0.5 * np.tensordot(random.normal(size=3), place**2, 1)
    return np.asarray(
        image * np.exp(strength * random.uniform(0.4, 1.2) * field / np.abs(field).max())
    )


def motion(image: Array, random: np.random.Generator, strength: int) -> Array:
    """Another position while the outer parts of k-space are measured."""
    axis = int(random.integers(3))

    def spectrum(volume: Array) -> Array:
        return np.fft.fftshift(np.fft.fftn(volume), axes=axis)

    whole, centre = spectrum(image), (np.array(image.shape) - 1) / 2
    for low, high in ((0.0, random.uniform(0.2, 0.45)), (random.uniform(0.55, 0.8), 1.0)):
        turn = rotation(strength * random.uniform(-6, 6, size=3))
        offset = centre - turn @ centre + strength * random.uniform(-5, 5, size=3)
        moved = spectrum(ndimage.affine_transform(image, turn, offset, order=1, mode="nearest"))
        part = [slice(None)] * 3
        part[axis] = slice(int(low * image.shape[axis]), int(high * image.shape[axis]))
        whole[tuple(part)] = moved[tuple(part)]
    return np.abs(np.fft.ifftn(np.fft.ifftshift(whole, axes=axis)))


def rotation(degrees: Array) -> Array:
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one, (a, b) = np.eye(3), [n for n in range(3) if n != axis]
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn


def contrast(image: Array, random: np.random.Generator, strength: int) -> Array:
    share = (image - image.min()) / np.ptp(image)
    gamma = np.exp(strength * random.choice([-1, 1]) * random.uniform(0.4, 1.0))
    return np.asarray(1000 * (1 - share if random.random() < 0.3 else share) ** gamma)


def thick_slices(scan: Scan, random: np.random.Generator, strength: int) -> Scan:
    """Pairs of slices along one axis become one, or four of them."""
    image, label, affine = scan
    axis, count = int(random.integers(3)), 2 * strength

    def joined(array: Array) -> Array:
        slices = np.moveaxis(array, axis, 0)[: array.shape[axis] // count * count]
        means = sum(slices[first::count].astype(np.float32) for first in range(count)) / count
        return np.moveaxis(np.asarray(means), 0, axis)

    shares = np.stack([joined((label == n).astype(np.float32)) for n in range(label.max() + 1)])
    affine = affine.copy()
    affine[:3, 3] += affine[:3, axis] * (count - 1) / 2
    affine[:3, axis] *= count
    return joined(image), shares.argmax(axis=0), affine


def shifted_crop(scan: Scan, random: np.random.Generator, strength: int) -> Scan:
    """Less at one end of each axis."""
    image, label, affine = scan
    first, part = [], []
    for n in image.shape:
        less = int(strength * random.uniform(0, 0.3) * n)
        first.append(less if random.random() < 0.5 else 0)
        part.append(slice(first[-1], first[-1] + n - less))
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    return image[tuple(part)], label[tuple(part)], affine


FAULTS: dict[str, Fault] = {
    "noise": of_image(noise),
    "bias field": of_image(bias_field),
    "motion": of_image(motion),
    "2 mm slices": thick_slices,
    "shifted crop": shifted_crop,
    "other contrast": of_image(contrast),
}
"""Fault -> a copy of a scan with it."""


if __name__ == "__main__":
    main()
