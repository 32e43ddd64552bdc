"""What a real fit changes, epoch by epoch, against the printed schedule."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.setup import prepare
from hsf_finetune.schedule.stages import NORMS, Schedule
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.stage_control import StageControl
from hsf_finetune.training.train import build_module
from hsf_finetune.training.trainer import make_trainer, run_trainer
from tests.conftest import CONF

NETWORK = [
    "models.channels=[4,4,4,4]",
    "models.strides=[2,2,2]",
    "models.features=4",
    "models.num_res_units=1",
]


class Watch(L.Callback):
    """Which parts of the network changed in each epoch, and at which rates.

    A part is a block without its normalisation, or `BLOCK.norms`.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._before: dict[str, list[Tensor]] = {}
        self.changed: list[set[str]] = []
        self.with_gradient: list[set[str]] = []
        self.rates: list[dict[str, float]] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self._before = self._tensors()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == 0:
            self.rates.append(
                {
                    f"{group['name']}.norms" if group["norms"] else group["name"]: group["lr"]
                    for group in trainer.optimizers[0].param_groups
                }
            )

    def on_train_epoch_end(self, *_: object) -> None:
        now = self._tensors()
        self.changed.append(
            {
                part
                for part, tensors in now.items()
                if any(
                    not torch.equal(a, b) for a, b in zip(tensors, self._before[part], strict=True)
                )
            }
        )
        self.with_gradient.append(
            {
                part
                for part, tensors in self._parts().items()
                if any(t.requires_grad for t in tensors)
            }
        )

    def _parts(self) -> dict[str, list[Tensor]]:
        parts = {}
        for block in self._anatomy.blocks:
            norms = [t for n in block.norms() for t in (*n.parameters(), *n.buffers())]
            own = {id(t) for t in norms}
            rest = [t for t in (*block.parameters(), *block.buffers()) if id(t) not in own]
            parts |= {block.name: rest, f"{block.name}.norms": norms}
        return {part: tensors for part, tensors in parts.items() if tensors}

    def _tensors(self) -> dict[str, list[Tensor]]:
        return {part: [t.detach().clone() for t in own] for part, own in self._parts().items()}

    def expected(self, trains: Collection[str]) -> set[str]:
        """The parts that change when these blocks (and `norms`) train."""
        return {
            part
            for part in self._parts()
            if part.partition(".")[0] in trains or (part.endswith(".norms") and NORMS in trains)
        }


def watched_fit(data: Path, folder: Path, *overrides: str) -> tuple[Schedule, Watch]:
    """The schedule as it went, and what a fit from random weights changed."""
    settings = compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            "datasets.k_sample=2",
            "datasets.batch_size=1",
            "models.weight_decay=0.1",
            "augmentation=none",
            "weights.pretrained=none",
            "finetuning.budget=fixed",
            "logger=csv",
            "report=off",
            "quality=off",
            "lightning.forecast=false",
            "lightning.accelerator=cpu",
            "lightning.check_val_every_n_epoch=100",
            *NETWORK,
            *overrides,
        ],
        CONF,
    )
    setup = prepare(settings, discover(settings.datasets), preview=True)
    data = CasesDataModule(setup.split, settings.datasets, setup.anatomy.divisor, seed=0)
    watch, average = Watch(setup.anatomy), AveragedWeights(0.9)
    control = StageControl(setup.schedule, folder / "stage.ckpt", average)
    trainer = make_trainer(
        settings.lightning,
        settings.logger,
        folder,
        setup.schedule.max_epochs,
        [watch, control, average],
    )
    module = build_module(setup.job, data.steps_per_epoch(1, 1))
    run_trainer(trainer, module, data, resume_from=None)
    return module.schedule, watch


PRESETS = {
    "hsf": ["finetuning.unfreeze_frequency=1"],
    "linear": [],
    "gradual": [
        "lightning.max_epochs=12",
        "finetuning.gradual_top_blocks=1",
        "finetuning.gradual_patience=1",
    ],
    "full": ["lightning.max_epochs=3"],
    "progressive": ["lightning.max_epochs=4", "finetuning.unfreeze_backbone_at_epoch=2"],
    "lpft": ["lightning.max_epochs=5", "finetuning.linear_probe_epochs=2"],
    "encoder_first": ["lightning.max_epochs=3"],
    "staged": [
        "finetuning.stages=[{epochs: 2, freeze_level: 2, augmentation: none},"
        "{epochs: 3, blocks: [encoder1, norms], lr: 0.01, augmentation_strength: 0.5},"
        "{epochs: 9, freeze_level: 1, patience_epochs: 2, head_boost: 3.0, start_from: last},"
        "{epochs: 2, freeze_level: 0, warmup: 0.5}]"
    ],
}
"""Short versions of every preset."""


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_what_its_table_says_at_its_rates(
    data: Path, tmp_path: Path, preset: str
) -> None:
    # At so small a rate nothing improves, so that every plateau comes as soon as it can.
    schedule, watch = watched_fit(
        data,
        tmp_path,
        f"finetuning={preset}",
        *PRESETS[preset],
        "models.lr=1e-6",
        "finetuning.budget=validation",
        "lightning.check_val_every_n_epoch=1",
        "models.norm=batch",
    )
    assert len(watch.changed) == schedule.max_epochs
    for epoch, changed in enumerate(watch.changed):
        trains = schedule.trainable(epoch)
        assert changed == watch.expected(trains), f"epoch {epoch}"
        rates = {part: rate for part, rate in watch.rates[epoch].items() if rate}
        assert rates == {
            part: pytest.approx(
                schedule.rate(
                    NORMS if part.partition(".")[0] not in trains else part.partition(".")[0],
                    epoch,
                    0,
                    2,
                )
            )
            for part in watch.expected(trains)
            if part in watch.rates[epoch]
        }
    if preset in ("linear", "gradual"):
        assert any(stage.ended_after is not None for stage in schedule.stages), "no plateau came"


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
        trainable = watch.expected(schedule.stage(epoch).rates)
        assert changed == trainable, f"epoch {epoch}"
        assert watch.with_gradient[epoch] == trainable
    first = {
        block: next((e for e, changed in enumerate(watch.changed) if block in changed), None)
        for block in schedule.blocks
    }
    assert first == {block: schedule.unfreeze_epoch.get(block) for block in schedule.blocks}


def test_rates_are_those_of_the_schedule(data: Path, tmp_path: Path) -> None:
    schedule, watch = watched_fit(data, tmp_path, "finetuning.unfreeze_frequency=3")
    for epoch, rates in enumerate(watch.rates):
        for part, rate in rates.items():
            block = part.partition(".")[0]
            assert rate == pytest.approx(schedule.rate(block, epoch, 0, 2))


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
    trained = [watch.expected(blocks) for blocks in (["head"], ["head", "decoder1"])]
    assert watch.changed == [trained[0]] * 2 + [trained[1]] * 2
