"""What a real fit changes, epoch by epoch, against the printed schedule."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from hsf_finetune.configuration import compose
from hsf_finetune.data.cases import discover
from hsf_finetune.data.datamodule import CasesDataModule
from hsf_finetune.data.splits import split_cases
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.schedule.schedule import Schedule
from hsf_finetune.schedule.strategies import plan
from hsf_finetune.starting_point import build_network
from hsf_finetune.training.callbacks import WarmAverage
from hsf_finetune.training.fit import fit, make_trainer
from hsf_finetune.training.losses import build_loss
from hsf_finetune.training.module import SegmentationModule
from tests.conftest import CONF

NETWORK = [
    "models.channels=[4,4,4,4]",
    "models.strides=[2,2,2]",
    "models.features=4",
    "models.num_res_units=1",
]


class Watch(L.Callback):
    """Which blocks' tensors changed in each epoch, and at which rates."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._before = self._tensors()
        self.changed: list[set[str]] = []
        self.with_gradient: list[set[str]] = []
        self.rates: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == 0:
            groups = trainer.optimizers[0].param_groups
            self.rates.append({group["name"]: group["lr"] for group in groups})

    def on_train_epoch_end(self, *_: object) -> None:
        now = self._tensors()
        self.changed.append(
            {
                name
                for name, tensors in now.items()
                if any(
                    not torch.equal(a, b) for a, b in zip(tensors, self._before[name], strict=True)
                )
            }
        )
        self.with_gradient.append(
            {b.name for b in self._anatomy.blocks if any(p.requires_grad for p in b.parameters())}
        )
        self._before = now

    def _tensors(self) -> dict[str, list[Tensor]]:
        return {
            block.name: [t.detach().clone() for t in (*block.parameters(), *block.buffers())]
            for block in self._anatomy.blocks
        }


def watched_fit(data: Path, folder: Path, *overrides: str) -> tuple[Schedule, Watch]:
    settings = compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            "datasets.k_sample=2",
            "datasets.batch_size=1",
            "logger=csv",
            "lightning.accelerator=cpu",
            "lightning.check_val_every_n_epoch=100",
            *NETWORK,
            *overrides,
        ],
        CONF,
    )
    cohort = discover(settings.datasets)
    split = split_cases(cohort.cases, settings.datasets, seed=0)
    anatomy = build_network(settings, cohort)
    schedule = plan(anatomy, settings.finetuning, settings.models, settings.lightning)
    module = CasesDataModule(split, settings.datasets, anatomy.divisor, seed=0)
    watch = Watch(anatomy)
    trainer = make_trainer(
        settings.lightning, settings.logger, folder, schedule.max_epochs, [watch, WarmAverage(0.9)]
    )
    training = SegmentationModule(
        anatomy,
        schedule,
        module.steps_per_epoch(1, 1),
        cohort.classes.names,
        build_loss("dice_ce"),
        weight_decay=0.1,
        augmentation=None,
        window_vox=module.window_vox,
        card={},
    )
    fit(trainer, training, module, resume_from=None)
    return schedule, watch


@pytest.mark.parametrize("mode", ["encoder", "decoder", "both"])
@pytest.mark.parametrize("depth", [-1, 0, 1, 2])
@pytest.mark.parametrize("frequency", [1, 2, 4])
def test_each_block_first_changes_in_the_epoch_of_the_table(
    data: Path, tmp_path: Path, mode: str, depth: int, frequency: int
) -> None:
    schedule, watch = watched_fit(
        data,
        tmp_path,
        f"finetuning.mode={mode}",
        f"finetuning.depth={depth}",
        f"finetuning.unfreeze_frequency={frequency}",
    )
    assert len(watch.changed) == schedule.max_epochs
    for epoch, changed in enumerate(watch.changed):
        trainable = {
            b for stage in schedule.stages if stage.first_epoch <= epoch for b in stage.thaws
        }
        assert changed == trainable, f"epoch {epoch}"
        assert watch.with_gradient[epoch] == trainable
    first = {
        block: next((e for e, changed in enumerate(watch.changed) if block in changed), None)
        for block in schedule.blocks
    }
    assert first == {block: schedule.thaw_epoch.get(block) for block in schedule.blocks}


def test_rates_are_those_of_the_schedule(data: Path, tmp_path: Path) -> None:
    schedule, watch = watched_fit(data, tmp_path, "finetuning.unfreeze_frequency=3")
    for epoch, rates in enumerate(watch.rates):
        # The scheduler has moved on to the second of two steps when the first has ended.
        for block, rate in rates.items():
            assert rate == pytest.approx(schedule.rate(block, 2 * epoch + 1, 2))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_frozen_statistics_stay_as_they_are(data: Path, tmp_path: Path, norm: str) -> None:
    _, watch = watched_fit(
        data,
        tmp_path,
        f"models.norm={norm}",
        "models.dropout=0.2",
        "finetuning.depth=1",
        "finetuning.unfreeze_frequency=2",
    )
    assert watch.changed == [{"head"}, {"head"}, {"head", "decoder1"}, {"head", "decoder1"}]
