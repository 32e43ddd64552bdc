"""How fast the parts are, each beside a reference measured in the same process.

    python benchmarks/speed.py --threads 1

Ratios are medians over alternating rounds, so that a machine that slows down halfway
slows both sides down.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from clock import now, peak_memory_mib
from loss_step import loss_figures
from rows import Row, row, show, write
from speed_training import stage_rows, training_rows

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import AugmentationSettings, Settings
from hsf_finetune.data.augment.batch_augmentation import BatchAugmentation
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, write_phantoms
from hsf_finetune.data.splits import split_cases
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.setup import prepare
from hsf_finetune.system.freed_memory import keep_freed_memory
from hsf_finetune.training.module import Augmentation

EPOCHS = 3


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        settings = phantom_settings(Path(folder), device)
        rows = [
            *training_rows(settings, device, options.rounds, Path(folder)),
            *stage_rows(settings, device, options.rounds, Path(folder)),
            *pipeline_rows(settings, device, options.rounds),
            *predict_rows(settings, device, options.rounds),
            *loss_rows(device, options.rounds, options.threads),
            row("peak memory", peak_memory_mib(device), "MiB", "", None),
        ]
    show(f"Speed on {device}, {options.threads} CPU thread(s)", rows)
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def phantom_settings(folder: Path, device: torch.device) -> Settings:
    """Settings for the phantom cohort, everything trainable, batch 2."""
    write_phantoms(folder / "data", PhantomCohort(source_subjects=1))
    return compose(
        "train",
        [
            "datasets=custom",
            f"datasets.main_path={folder / 'data'}",
            f"lightning.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
            "lightning.devices=1",
            f"lightning.max_epochs={EPOCHS}",
            f"lightning.check_val_every_n_epoch={EPOCHS + 1}",
            "finetuning.budget=fixed",
            "logger=csv",
        ],
    )


# ------------------------------------------------------------------------ pipeline
def pipeline_rows(settings: Settings, device: torch.device, rounds: int) -> list[Row]:
    """Volumes per second of our default augmentation and of HSF's preset."""
    cohort = discover(settings.datasets)
    split = split_cases(cohort.cases, settings.datasets, seed=0)
    hsf = AugmentationSettings(pipeline="torchio_hsf")
    ours = BatchAugmentation(AugmentationSettings(), flip_axes=(0,))
    reference, rates = [], []
    for number in range(rounds):
        reference.append(rate(settings, split, device, number, None, hsf))
        rates.append(rate(settings, split, device, number, ours, None))
    ratio = statistics.median(a / b for a, b in zip(rates, reference, strict=True))
    return [
        row("hsf preset (TorchIO)", statistics.median(reference), "volumes/s", "", None),
        row("default pipeline", statistics.median(rates), "volumes/s", "hsf preset", ratio),
    ]


def rate(
    settings: Settings,
    split: object,
    device: torch.device,
    number: int,
    on_device: Augmentation | None,
    in_loader: AugmentationSettings | None,
) -> float:
    """Volumes per second from the cache to the device, augmented."""
    datasets = settings.datasets.model_copy(update={"k_sample": 200, "replace": True})
    data = CasesDataModule(split, datasets, (8, 8, 8), number, in_loader)  # type: ignore[arg-type]
    data.read()
    started, volumes = now(device), 0
    for batch in data.train_dataloader():
        moved = to(batch, device)
        if on_device is not None:
            generator = torch.Generator().manual_seed(batch["seed"])
            on_device(moved["image"], moved["label"], moved["allowed"], generator, batch["spacing"])
        volumes += len(batch["case"])
    return volumes / (now(device) - started)


# ----------------------------------------------------------------------- predicting
def predict_rows(settings: Settings, device: torch.device, rounds: int) -> list[Row]:
    """Whole scans per second, from the file to a segmentation on its grid."""
    cohort = discover(settings.datasets)
    setup = prepare(settings, cohort, preview=True)
    predictor = Predictor(setup.anatomy, setup.card, device)
    rates = []
    for _ in range(rounds + 1):
        started = now(device)
        for case in cohort.cases:
            predictor.predict(case.images)
        rates.append(len(cohort.cases) / (now(device) - started))
    return [row("predict", statistics.median(rates[1:]), "volumes/s", "", None)]


# ------------------------------------------------------------------------------ loss
def loss_rows(device: torch.device, rounds: int, threads: int) -> list[Row]:
    """Forward and backward pass of the loss alone, and the memory it takes on top."""
    figures = loss_figures(device, 4 * rounds, threads)
    plain_ms, plain_memory = figures["MONAI"]
    rows = []
    for name, (ms, memory) in figures.items():
        ratio = statistics.median(a / b for a, b in zip(ms, plain_ms, strict=True))
        reference = "" if name == "MONAI" else "MONAI's DiceCELoss step"
        title = f"loss step, {'MONAI DiceCELoss' if name == 'MONAI' else name}"
        rows.append(
            row(title, statistics.median(ms), "ms", reference, ratio if reference else None)
        )
        rows.append(
            row(
                f"{title}: memory",
                memory,
                "tensors of (B, C, X, Y, Z)",
                reference,
                memory / plain_memory if reference else None,
            )
        )
    return rows


def to(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return Batch(
        image=batch["image"].to(device),
        label=batch["label"].to(device),
        allowed=batch["allowed"].to(device),
        spacing=batch["spacing"],
        case=batch["case"],
        seed=batch["seed"],
    )


if __name__ == "__main__":
    main()
