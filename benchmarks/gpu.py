"""What training costs on a GPU: precisions, our step beside the bare one, data, memory.

    python benchmarks/gpu.py --json rows.json
    python benchmarks/gpu.py --device cpu --tiny   # whether it runs at all

It needs the package and nothing else: the volumes are phantoms that it makes. Ratios are medians
over steps that are measured in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from clock import peak_memory_mib
from rows import Row, row, show, write
from speed import pipeline_rows
from speed_training import fitted, medians_ms, plain_cross_entropy

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, write_phantoms
from hsf_finetune.planning.auto_sizes import with_sizes
from hsf_finetune.planning.forecast_run import make_forecast
from hsf_finetune.planning.setup import prepare

TINY = PhantomCohort(source_subjects=1, target_subjects=5, shape_vox=(16, 24, 16))
FULL = PhantomCohort(source_subjects=1, target_subjects=8, shape_vox=(128, 128, 128))
EPOCHS = 6


def main() -> None:
    options = arguments()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cohort = TINY if options.tiny else FULL
        write_phantoms(folder / "data", cohort)
        rows: list[Row] = []
        before: list[float] = []
        for precision in ("32-true", "bf16-mixed"):
            settings = phantom_settings(folder, device, cohort, precision)
            rows += step_rows(settings, device, folder, before)
            write(options.json, rows)
        rows += pipeline_rows(settings, device, 1 if options.tiny else 5)
    show(f"training on {name}, torch {torch.__version__}", rows)
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="volumes of 16 x 24 x 16 voxels")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def phantom_settings(
    folder: Path, device: torch.device, cohort: PhantomCohort, precision: str
) -> Settings:
    """Settings for the phantom cohort, everything trainable, batch 2."""
    return compose(
        "train",
        [
            "datasets=custom",
            f"datasets.main_path={folder / 'data'}",
            f"datasets.patch_vox={[*cohort.shape_vox]}".replace(" ", ""),
            f"lightning.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
            "lightning.devices=1",
            f"lightning.precision={precision}",
            f"lightning.max_epochs={EPOCHS}",
            f"lightning.check_val_every_n_epoch={EPOCHS + 1}",
            "finetuning.budget=fixed",
            "logger=csv",
        ],
    )


def step_rows(
    settings: Settings, device: torch.device, folder: Path, before: list[float]
) -> list[Row]:
    """Step, epoch and memory at a precision; `before` gets the step's milliseconds."""
    precision = settings.lightning.precision
    setup = with_sizes(prepare(settings, discover(settings.datasets), preview=True))
    forecast = make_forecast(setup)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    beside, steps = fitted(settings, device, folder, plain_cross_entropy)
    seconds = beside.stages[0]
    _, ours_ms = medians_ms(seconds)
    epoch_ms = 1000 * statistics.median(seconds.epochs) / steps
    expected = forecast.host_bytes if forecast.device_bytes is None else forecast.device_bytes
    peak, expected_mib = peak_memory_mib(device), expected / 2**20
    first = f"step at {precision}"
    ratio = ours_ms / before[0] if before else None
    before.append(ours_ms)
    return [
        row(first, ours_ms, "ms", "step at 32-true" if ratio else "", ratio),
        row(f"{first}, beside the bare one", ours_ms, "ms", "bare", seconds.step_ratio),
        row(
            "epoch: reading, augmentation, logging", epoch_ms, "ms/step", first, epoch_ms / ours_ms
        ),
        row("memory, with the bare step's", peak, "MiB", "forecast", peak / expected_mib),
    ]


if __name__ == "__main__":
    main()
