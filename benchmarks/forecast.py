"""How near the forecast comes to what short real runs then take, on the CPU.

    python benchmarks/forecast.py [--only NAME,...] [-o FILE.json]

Each configuration is forecast in one fresh process and trained in another, so that neither
finds the other's memory; both on one thread, in processor time, which other programs on the
machine do not lengthen. Memory is the largest of the whole process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETS: dict[str, list[str]] = {
    "unet, small patches": ["datasets.patch_vox=[32,48,32]"],
    "unet, batch 4": ["datasets.patch_vox=[32,48,32]", "datasets.batch_size=4"],
    "unet, whole volumes": [],
    "unet, fine voxels": [
        "datasets.target_spacing_mm=[0.35,0.35,0.35]",
        "datasets.patch_vox=[96,96,96]",
    ],
    "unet, no augmentation": ["datasets.patch_vox=[32,48,32]", "augmentation=none"],
    "unet, hsf schedule": ["finetuning=hsf", "finetuning.unfreeze_frequency=1"],
    "dynunet": ["models=dynunet", "datasets.patch_vox=[48,64,48]"],
    "segresnet": ["models=segresnet", "datasets.patch_vox=[48,64,48]"],
    "arunet, 16 maps": [
        "models=arunet",
        "models.hparams.f_maps=16",
        "datasets.patch_vox=[32,48,32]",
    ],
    "swinunetr": ["models=swinunetr", "datasets.patch_vox=[64,64,64]", "datasets.k_sample=4"],
}
"""Name -> overrides."""
COMMON = [
    "datasets=phantom",
    "datasets.k_sample=12",
    "datasets.fold=null",
    "finetuning.pretrained=none",
    "finetuning=full",
    "lightning.accelerator=cpu",
    "lightning.threads=1",
    "logger=csv",
]
EPOCHS = 3


def forecast_one(overrides: list[str]) -> dict[str, Any]:
    """What the forecast says, per epoch and for the process."""
    import torch

    from hsf_finetune.config.compose import compose
    from hsf_finetune.data.discovery.cases import discover
    from hsf_finetune.experiment.active_run import make_data
    from hsf_finetune.planning.forecast_run import make_forecast
    from hsf_finetune.planning.setup import prepare

    torch.set_num_threads(1)
    settings = compose("finetune", overrides)
    setup = prepare(settings, discover(settings.datasets, settings.models), preview=True)
    data = make_data(setup)
    data.read()
    begun = time.perf_counter()
    found = make_forecast(setup, data, clock=time.thread_time)
    return {
        "bytes": found.host_bytes,
        "seconds": [s.seconds for s in found.stages for _ in range(s.epochs)],
        "took_s": time.perf_counter() - begun,
        "extrapolated": found.extrapolated,
    }


def train_one(overrides: list[str]) -> dict[str, Any]:
    """What a run takes, per epoch and for the process."""
    from hsf_finetune.config.compose import compose
    from hsf_finetune.experiment.run import run_experiment

    folder = run_experiment(compose("finetune", [*overrides, "lightning.forecast=false"])).folder
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(r["cost/train_cpu_s"]) + float(r["cost/validation_cpu_s"]) for r in rows]
    return {
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": seconds,
    }


def child(what: str, overrides: list[str]) -> dict[str, Any]:
    """Runs one of the two in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, *overrides],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Compares every configuration and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, joined by commas; parts are enough")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, *overrides = options.child
        found = forecast_one(overrides) if what == "forecast" else train_one(overrides)
        print(json.dumps(found))
        return
    from rows import Row, row, show, write

    wanted = [part for part in options.only.split(",") if part]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        from hsf_finetune.data.phantom.write_phantoms import write_phantoms

        write_phantoms(Path(folder) / "data")
        for name, own in SETS.items():
            if wanted and not any(part in name for part in wanted):
                continue
            where = [f"datasets.main_path={folder}/data", f"datasets.output_path={folder}/out"]
            given = [*COMMON, *where, *own]
            if "finetuning=hsf" not in own:
                given.append(f"lightning.max_epochs={EPOCHS}")
            else:
                given.remove("finetuning=full")
            said, took = child("forecast", given), child("train", given)
            ratio = said["bytes"] / took["bytes"]
            rows.append(
                row(
                    f"{name}: memory",
                    said["bytes"] / 1e9,
                    "GB",
                    f"{took['bytes'] / 1e9:.2f}",
                    ratio,
                )
            )
            pairs = list(zip(said["seconds"], took["seconds"], strict=True))
            worst = max((a / b for a, b in pairs), key=lambda r: max(r, 1 / r))
            mean = [sum(values) / len(pairs) for values in zip(*pairs, strict=True)]
            rows.append(row(f"{name}: epoch", mean[0], "s", f"{mean[1]:.2f}", mean[0] / mean[1]))
            rows.append(row(f"{name}: worst epoch", worst, "ratio", "1", worst))
            rows.append(row(f"{name}: forecast took", said["took_s"], "s", "", None))
            print(
                *(f"{r['name']}: {r['value']:.3g} {r['ratio']}" for r in rows[-4:]),
                sep="\n",
                flush=True,
            )
    show("forecast against what a run took (ratio: forecast / actual)", rows)
    write(options.output, rows)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
