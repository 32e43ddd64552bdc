"""Seconds and memory of `predict` beside HSF, `monai.bundle run` and nnU-Net, on the same scans.

    python benchmarks/predict.py --env-hsf ENV --env-nnunet ENV --json rows.json

Each program runs the same network (random weights) in a process of its own, on one core. The
processor time of a process and its children counts, start-up included. Each size is measured with
one scan and with several; the total for all scans is that of one and of what each further one
adds. Every program takes each scan in one piece.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from rows import Row, show, write
from scipy.ndimage import gaussian_filter

import hsf_finetune as hf
from hsf_finetune.config.settings import (
    NetworkSettings,
    NnUNetSettings,
    Preprocessing,
    UNetSettings,
)
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build

SIZES: Mapping[str, tuple[int, int, int]] = {
    "crop": (40, 56, 40),
    "96": (96, 96, 96),
    "160": (160, 160, 160),
}
MEASURED = {"96": 6, "160": 6}
"""Scans that are measured of those that are larger than crops."""
VALUES = {"background": 0, "anterior": 1, "posterior": 2}
UNET = UNetSettings()
NNUNET = NnUNetSettings(features_per_stage=[16, 32, 64, 128])
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Cost:
    """Processor seconds, and memory in MiB of the largest of the processes."""

    seconds: float
    memory_mib: float


@dataclass(frozen=True)
class Program:
    """What segments the scans of a folder.

    Args:
        name: for the table.
        reference: whether `predict` is compared with it.
        command: its command; SCANS and OUT stand for folders.
        export: what it takes before each scan and its output; None if it takes folders.
    """

    name: str
    reference: bool
    command: Sequence[str | Path]
    export: Path | None = None

    def run(self, scans: Path, out: Path, log: Path) -> Cost:
        """Its cost on the scans of a folder."""
        out.mkdir()
        replaced = {"SCANS": str(scans), "OUT": str(out)}
        command = [replaced.get(str(part), str(part)) for part in self.command]
        for scan in sorted(scans.iterdir()) if self.export else ():
            command += [str(self.export), str(scan), str(out / scan.name)]
        given = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=given,
                preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
            )
            _, status, used = os.wait4(process.pid, 0)
        if status or len([*out.rglob("*.nii.gz")]) < len([*scans.iterdir()]):
            raise SystemExit(f"{self.name} failed: {command}\n{log.read_text()[-2000:]}")
        return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HSF_FINETUNE_CACHE"] = f"{folder}/cache"
        for network in (one for one in (UNET, NNUNET) if one.name in options.networks):
            for size in options.sizes:
                place = Path(folder) / f"{network.name}_{size}"
                count = MEASURED.get(size, options.scans)
                programs = make_programs(network, size, place, options)
                if len(programs) > 2:
                    rows += measure(programs, size, place, count, options.scans)
                    write(options.json, rows)
    show("predict beside other programs, one core", rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env-hsf", type=Path, help="environment with hsf and onnxruntime")
    parser.add_argument("--env-nnunet", type=Path, help="environment with nnunetv2")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--networks", nargs="+", default=["unet", "nnunet"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def make_programs(
    network: NetworkSettings, size: str, place: Path, options: argparse.Namespace
) -> list[Program]:
    """The programs that run a network, with its exports in a folder."""
    shape = SIZES[size]
    how = Preprocessing(window_vox=(160, 160, 160))  # the others take all scans in one piece
    if isinstance(network, NnUNetSettings):
        how = Preprocessing(padding="symmetric", padded_size="window", window_vox=shape)
    torch.manual_seed(0)
    card = ModelCard(tuple(VALUES), VALUES, network, 1, how)
    model = Predictor(build(network, 1, len(VALUES)), card, torch.device("cpu"))
    doors = ["checkpoint", "nnunet"] if network is NNUNET else ["checkpoint", "hsf", "bundle"]
    for door in doors:
        hf.export(model, door, place / door, proof=False)
    own = Path(sys.executable).with_name("hsf-finetune")
    (weights,) = (place / "checkpoint").rglob("*.ckpt")
    programs = [
        Program(
            f"predict --engine {e}",
            False,
            [own, "predict", weights, "SCANS", "-o", "OUT", "--engine", e],
        )
        for e in ("torch", "auto")
    ]
    if "nnunet" in doors and options.env_nnunet:
        results = next((place / "nnunet").glob("Dataset*/*"))
        command = [options.env_nnunet / "bin" / "nnUNetv2_predict_from_modelfolder", "-m", results]
        command += [
            "-f",
            "0",
            "--disable_tta",
            "-device",
            "cpu",
            "-npp",
            "1",
            "-nps",
            "1",
            "-i",
            "SCANS",
            "-o",
            "OUT",
        ]
        programs.append(Program("nnUNetv2_predict", True, command))
    if "hsf" in doors and options.env_hsf:
        script = Path(__file__).parents[1] / "tests" / "export" / "run_hsf.py"
        command = [options.env_hsf / "bin" / "python", script]
        programs.append(Program("HSF", True, command, place / "hsf"))
    if "bundle" in doors:
        bundle = place / "bundle"
        command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", bundle]
        command += ["--config_file", bundle / "configs" / "inference.json"]
        command += ["--dataset_dir", "SCANS", "--output_dir", "OUT"]
        programs.append(Program("monai.bundle run", True, command))
    return programs


def save_scans(folder: Path, shape: Sequence[int], count: int) -> Path:
    """Writes smooth random scans, as nnU-Net names them."""
    folder.mkdir()
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image = 1000 * gaussian_filter(noise, 2) + 300
    for number in range(count):
        moved = np.roll(image, number, axis=1).astype(np.int16)
        nib.save(nib.Nifti1Image(moved, np.eye(4)), folder / f"case{number}_0000.nii.gz")
    return folder


def measure(
    programs: Sequence[Program], size: str, place: Path, count: int, all_scans: int
) -> list[Row]:
    """A row per program: its seconds for all scans, and memory; and ratios to `predict`."""
    scans = save_scans(place / "scans", SIZES[size], count)
    one = save_scans(place / "one", SIZES[size], 1)
    log = place / "log.txt"
    # The graph is made and compared once for each model.
    programs[1].run(one, place / "first", log)
    found: list[tuple[Program, float, float, float]] = []
    for number, program in enumerate(programs):
        first = program.run(one, place / f"one{number}", log)
        cost = program.run(scans, place / f"out{number}", log)
        further = (cost.seconds - first.seconds) / (count - 1)
        total = first.seconds + further * (all_scans - 1)
        found.append((program, total, further, max(first.memory_mib, cost.memory_mib)))
        print(size, program.name, round(total, 1), first, cost, flush=True)
    best = min(total for program, total, _, _ in found if not program.reference)
    return [
        {
            "network": place.name.partition("_")[0],
            "scans": f"{all_scans} x {size}",
            "program": program.name,
            "CPU s": round(total, 1),
            "CPU s a scan": round(further, 3),
            "MiB": round(memory),
            "times predict": round(total / best, 2) if program.reference else "",
        }
        for program, total, further, memory in found
    ]


if __name__ == "__main__":
    main()
