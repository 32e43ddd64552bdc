"""What grows with what: seconds and memory of commands on growing scans, classes and cohorts.

    python benchmarks/scale.py --json rows.json
    python benchmarks/scale.py --works check start --cases 500 2000 8000

Each command runs in a process of its own, on one thread. The processor time of a process and its
children counts, and the memory of the largest of them. `growth` is the exponent p of size^p over
all rows of a work, by regression, of what is added to the smallest work, its size and its time (most of
it start-up and imports), where two rows or more add a tenth to that time: less is chance.
Each row is printed, and written, as soon as it is measured.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rows import Row, show, write

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
NOTABLE = 0.1
"""Share of the smallest work's time from which on a longer time is not chance."""
COMMAND = Path(sys.executable).with_name("hsf-finetune")
TINY = (16, 16, 16)
"""Size of the scans of a cohort, so that the work for each case shows, not its voxels."""
CROP = (40, 56, 40)

FIRST_STEP = """
import os, sys
from hsf_finetune.cli.main import main
from hsf_finetune.cli.quick_start import import_training
import_training()
from hsf_finetune.training.module import SegmentationModule
SegmentationModule.training_step = lambda *given: os._exit(0)
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Work:
    """Something that is done at growing sizes.

    Args:
        name: for the table.
        unit: of the sizes.
        sizes: growing; the first one is only taken off from the others.
        command: a size, and a folder to write into -> what is run.
        amount: of a size, by which growth is measured.
    """

    name: str
    unit: str
    sizes: Sequence[int]
    command: Callable[[int, Path], Sequence[str | Path]]
    amount: Callable[[int], float] = float


@dataclass(frozen=True)
class Cost:
    """Processor seconds, and memory in MiB of the largest process."""

    seconds: float
    memory_mib: float


def main() -> None:
    options = arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        os.environ.update(ONE_THREAD, HSF_FINETUNE_CACHE=f"{folder}/cache")
        for work in works(options, folder):
            if work.name.partition(" ")[0] not in options.works:
                continue
            for row in measure(work, folder):
                print(*row.values(), sep=" | ", flush=True)
                rows.append(row)
                write(options.json, rows)
    show("what grows with what, one thread", rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = ["predict", "init", "check", "plan", "start"]
    parser.add_argument("--works", nargs="+", choices=names, default=names)
    parser.add_argument("--cases", nargs="+", type=int, default=[500, 2000, 8000])
    parser.add_argument("--edges", nargs="+", type=int, default=[192, 256, 384], help="in voxels")
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 30, 118])
    parser.add_argument("--scans", nargs="+", type=int, default=[20, 100, 300])
    parser.add_argument("--folder", type=Path, help="to write into, where /tmp is small")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def works(options: argparse.Namespace, folder: Path) -> list[Work]:
    """Everything that can be measured."""

    def finetune(command: Sequence[str | Path]) -> Callable[[int, Path], Sequence[str | Path]]:
        def run(cases: int, out: Path) -> Sequence[str | Path]:
            elsewhere(save_cohort, folder / f"cohort_{cases}", cases)
            yaml = write_path(folder, cases)
            if not yaml.exists():
                run_command([COMMAND, "init", folder / f"cohort_{cases}", "-o", yaml])
            own: list[str | Path] = ["--config-dir", yaml.parents[1], "datasets=cohort"]
            network = ["models.channels=[4,8]", "models.strides=[2]"]
            # Scans in memory are not measured: how many there are is up to datasets.cache.
            settings = ["finetuning.pretrained=none", "datasets.cache=off", *network]
            return [*command, *own, *settings, f"datasets.output_path={out}"]

        return run

    def describe(cases: int, out: Path) -> Sequence[str | Path]:
        elsewhere(save_cohort, folder / f"cohort_{cases}", cases)
        yaml = write_path(folder, cases)
        return [COMMAND, "init", folder / f"cohort_{cases}", "--force", "-o", yaml]

    cases = [16, *options.cases]
    return [
        Work(
            "predict voxels",
            "voxels a side",
            [64, *options.edges],
            lambda edge, out: predict(folder, 4, (edge, edge, edge), 1, out),
            windows_of,
        ),
        Work(
            "predict classes",
            "classes",
            [2, *options.classes],
            lambda classes, out: predict(folder, classes, (192, 192, 192), 1, out),
        ),
        Work(
            "predict scans",
            "scans",
            [1, *options.scans],
            lambda scans, out: predict(folder, 4, CROP, scans, out),
        ),
        Work("init", "cases", cases, describe),
        Work("check", "cases", cases, finetune([COMMAND, "check"])),
        Work("plan", "cases", cases, finetune([COMMAND, "plan"])),
        Work("start", "cases", cases, finetune([sys.executable, "-c", FIRST_STEP, "finetune"])),
    ]


def windows_of(edge: int) -> float:
    """Windows of a cube, of 128 voxels at an overlap of half."""
    return float(max(math.ceil((edge - 128) / 64) + 1, 1)) ** 3


def write_path(folder: Path, cases: int) -> Path:
    """The dataset's YAML."""
    return folder / f"conf_{cases}" / "datasets" / "cohort.yaml"


# -------------------------------------------------------------------- what is worked on
def predict(
    folder: Path, classes: int, shape: tuple[int, int, int], scans: int, out: Path
) -> Sequence[str | Path]:
    """The command that segments so many scans of a size with so many classes."""
    model = folder / f"model_{classes}"
    elsewhere(save_model, model, classes)
    place = folder / f"scans_{'x'.join(map(str, shape))}_{scans}"
    elsewhere(save_scans, place, shape, scans)
    (weights,) = model.rglob("*.ckpt")
    return [COMMAND, "predict", weights, place, "-o", out, "--engine", "torch"]


def elsewhere(save: Callable[..., None], folder: Path, *given: object) -> None:
    """Writes a folder, unless it exists, in a process of its own.

    The memory of a command counts from that of the process that starts it.
    """
    if not folder.exists():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(save, folder, *given).result()


def save_model(folder: Path, classes: int) -> None:
    """A checkpoint of a small network with random weights."""
    import torch

    import hsf_finetune as hf
    from hsf_finetune.config.settings import Preprocessing, UNetSettings
    from hsf_finetune.inference.model_card import ModelCard
    from hsf_finetune.inference.predictor import Predictor
    from hsf_finetune.networks.build import build

    names = ("background", *(f"class {n}" for n in range(1, classes)))
    values = {name: n for n, name in enumerate(names)}
    network = UNetSettings(channels=[4, 8], strides=[2])
    torch.manual_seed(0)
    card = ModelCard(names, values, network, 1, Preprocessing())
    model = Predictor(build(network, 1, classes), card, torch.device("cpu"))
    hf.export(model, "checkpoint", folder, proof=False)


def save_scans(folder: Path, shape: Sequence[int], scans: int) -> None:
    """Smooth random scans."""
    import nibabel as nib
    import numpy as np
    from scipy.ndimage import gaussian_filter

    folder.mkdir()
    noise = np.random.default_rng(0).normal(size=[-(-n // 4) for n in shape])
    large = gaussian_filter(noise, 1).astype(np.float32)
    for axis in range(3):
        large = large.repeat(4, axis)[tuple(slice(n) for n in shape[: axis + 1])]
    image = (1000 * large + 300).astype(np.int16)
    for number in range(scans):
        moved = np.roll(image, number, axis=1)
        nib.save(nib.Nifti1Image(moved, np.eye(4)), folder / f"scan{number:03d}.nii")


def save_cohort(folder: Path, cases: int) -> None:
    """A cohort with a folder for each subject."""
    import nibabel as nib
    import numpy as np

    random = np.random.default_rng(0)
    x, y, z = np.mgrid[tuple(slice(n) for n in TINY)]
    for number in range(cases):
        place = folder / f"sub-{number:05d}"
        place.mkdir(parents=True)
        a, b, c = random.uniform(6, 10, 3)
        inside = ((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) < 20
        inside &= random.uniform(size=TINY) > 0.02  # no two labels are the same
        image = 200 * inside + 50 * random.normal(size=TINY) + 500
        parts = {"t2": image.astype(np.int16), "seg": (inside * (1 + (x > 8))).astype(np.uint8)}
        for name, voxels in parts.items():
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), place / f"{name}.nii")


# -------------------------------------------------------------------- measuring
def measure(work: Work, folder: Path) -> Iterator[Row]:
    """A row for each size but the first; the last one has the growth over all of them."""
    smallest, *sizes = work.sizes
    cost_of(work, smallest, folder / "first")  # which may have modules to compile
    start = cost_of(work, smallest, folder)
    points: list[tuple[float, float]] = []
    for size in sizes:
        cost = cost_of(work, size, folder)
        if cost.seconds > (1 + NOTABLE) * start.seconds:
            added = work.amount(size) - work.amount(smallest)
            points.append((added, cost.seconds - start.seconds))
        yield {
            "work": work.name,
            "size": f"{size:,} {work.unit}",
            "CPU s": round(cost.seconds, 1),
            "MiB": round(cost.memory_mib),
            "growth": round(growth(points), 2) if size == sizes[-1] and len(points) > 1 else "",
        }


def growth(points: Sequence[tuple[float, float]]) -> float:
    """The exponent p of seconds ~ amount^p, by least squares of the logarithms."""
    amounts, seconds = (
        [math.log(value) for value in values] for values in zip(*points, strict=True)
    )
    return statistics.linear_regression(amounts, seconds).slope


def cost_of(work: Work, size: int, folder: Path) -> Cost:
    """The cost of one size; where work is done twice, that of the second time."""
    out = folder / f"{work.name}_{size}".replace(" ", "_")
    command = work.command(size, out)
    if work.name == "start":  # what is found about the cases is kept
        run_command(command)
    return run_command(command)


def run_command(command: Sequence[str | Path]) -> Cost:
    """The cost of a command."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*map(str, command)], stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(f"failed: {command}\n{said.read()[-2000:]}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
