"""How fast the parts are, each beside a reference measured in the same process.

    python benchmarks/speed.py --threads 1

Ratios are medians over alternating rounds, so that a machine that slows down halfway
slows both sides down.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from rows import Row, show, write
from torch.nn import functional

from hsf_finetune.configuration import compose
from hsf_finetune.data.augmentation import BatchAugmentation
from hsf_finetune.data.cases import discover
from hsf_finetune.data.datamodule import Batch, CasesDataModule
from hsf_finetune.data.phantom import write_cohort
from hsf_finetune.data.splits import split_cases
from hsf_finetune.data.torchio_hsf import hsf_pipeline
from hsf_finetune.inference.predictor import ModelCard, Predictor
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.schedule.strategies import plan
from hsf_finetune.settings import AugmentationSettings, Settings
from hsf_finetune.starting_point import build_network
from hsf_finetune.training.allocator import keep_freed_memory
from hsf_finetune.training.callbacks import WarmAverage
from hsf_finetune.training.fit import fit, make_trainer
from hsf_finetune.training.losses import build_loss
from hsf_finetune.training.module import Augmentation, SegmentationModule

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
            *pipeline_rows(settings, device, options.rounds),
            *predict_rows(settings, device, options.rounds),
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


def row(name: str, value: float, unit: str, reference: str, ratio: float | None) -> Row:
    """A line of the table; `ratio` is value over reference."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": "" if ratio is None else round(ratio, 3),
    }


def phantom_settings(folder: Path, device: torch.device) -> Settings:
    """Settings for the phantom cohort, everything trainable, batch 2."""
    write_cohort(folder / "data", source_subjects=1, target_subjects=8)
    return compose(
        "train",
        [
            "datasets=custom",
            f"datasets.main_path={folder / 'data'}",
            f"lightning.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
            "lightning.devices=1",
            f"lightning.max_epochs={EPOCHS + 1}",
            f"lightning.check_val_every_n_epoch={EPOCHS + 1}",
            "logger=csv",
        ],
    )


# ------------------------------------------------------------------------ training
class StepClock(L.Callback):
    """Seconds of each epoch but the first, and of the steps in them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = self._step_started = 0.0
        self.epochs: list[float] = []
        self.steps: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._started = now(self._device)

    def on_train_batch_start(self, *_: object) -> None:
        """Starts the step's clock, once the batch is augmented and on the device."""
        self._step_started = now(self._device)

    def on_train_batch_end(self, *_: object) -> None:
        """Stops it."""
        self.steps.append(now(self._device) - self._step_started)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops it, unless the epoch validated or warmed up."""
        if trainer.current_epoch:
            self.epochs.append(now(self._device) - self._started)


def training_rows(settings: Settings, device: torch.device, rounds: int, folder: Path) -> list[Row]:
    """Our epoch and step against the bare forward and backward passes in them."""
    cohort = discover(settings.datasets)
    split = split_cases(cohort.cases, settings.datasets, seed=0)
    epoch_ratios, step_ratios, epochs_s, steps_s, bare_s = [], [], [], [], []
    for _ in range(rounds):
        anatomy = build_network(settings, cohort)
        data = CasesDataModule(split, settings.datasets, anatomy.divisor, seed=0)
        data.read()
        batches = [to(batch, device) for batch in data.train_dataloader()]
        anatomy.network.to(device)
        bare = bare_epoch_s(anatomy, batches, device)
        epoch, step = fit_s(settings, anatomy, data, device, folder)
        bare = (bare + bare_epoch_s(anatomy, batches, device)) / 2
        bare_s.append(bare / len(batches))
        epochs_s.append(epoch / len(batches))
        steps_s.append(step)
        epoch_ratios.append(epochs_s[-1] / bare_s[-1])
        step_ratios.append(step / bare_s[-1])
    return [
        row("bare forward + backward", 1000 * statistics.median(bare_s), "ms/step", "", None),
        row(
            "our step (loss, AdamW, clipping, EMA)",
            1000 * statistics.median(steps_s),
            "ms/step",
            "bare forward + backward",
            statistics.median(step_ratios),
        ),
        row(
            "our epoch (step, reading, augmentation, logging)",
            1000 * statistics.median(epochs_s),
            "ms/step",
            "bare forward + backward",
            statistics.median(epoch_ratios),
        ),
    ]


def fit_s(
    settings: Settings,
    anatomy: Anatomy,
    data: CasesDataModule,
    device: torch.device,
    folder: Path,
) -> tuple[float, float]:
    """Median seconds of our training epochs, and of our steps."""
    schedule = plan(anatomy, settings.finetuning, settings.models, settings.lightning)
    clock = StepClock(device)
    around = [clock, WarmAverage(0.99)]
    trainer = make_trainer(
        settings.lightning, settings.logger, folder, schedule.max_epochs - 1, around
    )
    module = SegmentationModule(
        anatomy,
        schedule,
        data.steps_per_epoch(1, 1),
        ("background", *(f"class {k}" for k in range(1, 8))),
        build_loss("dice_ce"),
        1e-4,
        BatchAugmentation(settings.augmentation, flip_axes=(0,)),
        data.window_vox,
        card={},
    )
    fit(trainer, module, data, resume_from=None)
    anatomy.network.to(device)
    return statistics.median(clock.epochs), statistics.median(clock.steps)


def bare_epoch_s(anatomy: Anatomy, batches: Sequence[Batch], device: torch.device) -> float:
    """Seconds of forward, cross-entropy and backward over the batches of an epoch."""
    network = anatomy.network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    started = now(device)
    for batch in batches:
        network.zero_grad(set_to_none=True)
        logits = network(batch["image"])
        functional.cross_entropy(logits.float(), batch["label"].long()).backward()
    return now(device) - started


# ------------------------------------------------------------------------ pipeline
def pipeline_rows(settings: Settings, device: torch.device, rounds: int) -> list[Row]:
    """Volumes per second of our default augmentation and of HSF's preset."""
    cohort = discover(settings.datasets)
    split = split_cases(cohort.cases, settings.datasets, seed=0)
    hsf, ours = hsf_pipeline(), BatchAugmentation(AugmentationSettings(), flip_axes=(0,))
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
    in_loader: object,
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
            on_device(moved["image"], moved["label"], generator, batch["spacing"])
        volumes += len(batch["case"])
    return volumes / (now(device) - started)


# ----------------------------------------------------------------------- predicting
def predict_rows(settings: Settings, device: torch.device, rounds: int) -> list[Row]:
    """Whole scans per second, from the file to a segmentation on its grid."""
    cohort = discover(settings.datasets)
    anatomy = build_network(settings, cohort)
    card = ModelCard(
        cohort.classes.names,
        cohort.cases[0].protocol.value_of(),
        settings.models,
        cohort.channels,
        None,
        (128, 128, 128),
    )
    predictor = Predictor(anatomy, card, device)
    rates = []
    for _ in range(rounds + 1):
        started = now(device)
        for case in cohort.cases:
            predictor.predict(case.images)
        rates.append(len(cohort.cases) / (now(device) - started))
    return [row("predict", statistics.median(rates[1:]), "volumes/s", "", None)]


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


def now(device: torch.device) -> float:
    """Seconds, once the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def peak_memory_mib(device: torch.device) -> float:
    """Most memory in use so far, on the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
