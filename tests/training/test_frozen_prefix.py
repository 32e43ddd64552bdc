"""Blocks before the first one that trains are run, and nothing more: no graph, gradient or moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.setup import prepare
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.train import build_module
from hsf_finetune.training.trainer import make_trainer, run_trainer
from tests.conftest import CONF

NETWORKS = {
    "unet": ["models.channels=[4,8,8]", "models.strides=[2,2]", "models.features=4"],
    "dynunet": ["models.channels=[4,8,8]"],
    "segresnet": [
        "models.init_filters=4",
        "models.norm_groups=2",
        "models.blocks_down=[1,1,1]",
        "models.blocks_up=[1,1]",
    ],
    "arunet": ["models.hparams.f_maps=4", "models.hparams.num_levels=3"],
}


class Watch(L.Callback):
    """What each block's layers output in an epoch, and what is kept for the backward pass.

    Args:
        anatomy: of the network.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._packing: Any = None
        self._kept: dict[int, int] = {}
        self.in_graph: list[dict[str, set[bool]]] = []
        self.kept_bytes: list[int] = []
        self.with_gradient: list[set[str]] = []
        self.with_moments: list[set[str]] = []
        for block in anatomy.blocks:
            for layer in {x for module in block.modules for x in module.modules()}:
                layer.register_forward_hook(self._note(block.name))

    def _note(self, block: str) -> Any:
        def hook(layer: nn.Module, _: object, output: object) -> None:
            if self._packing is not None and isinstance(output, Tensor):
                assert (output.grad_fn is not None) == output.requires_grad
                self.in_graph[-1].setdefault(block, set()).add(output.requires_grad)

        return hook

    def on_train_batch_start(self, *_: object) -> None:
        weights = {t.data_ptr() for b in self._anatomy.blocks for t in b.parameters()}
        self._kept = {}
        self.in_graph.append({})

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                self._kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        self._packing = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self._packing.__enter__()

    def on_before_backward(self, *_: object) -> None:
        self._packing.__exit__(None, None, None)
        self._packing = None
        self.kept_bytes.append(sum(self._kept.values()))

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.with_gradient.append(
            {
                b.name
                for b in self._anatomy.blocks
                if any(p.grad is not None for p in b.parameters())
            }
        )
        moments = trainer.optimizers[0].state
        self.with_moments.append(
            {b.name for b in self._anatomy.blocks if any(moments.get(p) for p in b.parameters())}
        )


def watched(data: Path, folder: Path, network: str, mode: str) -> tuple[Schedule, Watch]:
    """One step in each stage of gradual unfreezing."""
    settings = compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            "datasets.k_sample=1",
            "datasets.batch_size=1",
            f"models={network}",
            *NETWORKS[network],
            "finetuning.unfreeze_frequency=1",
            f"finetuning.mode={mode}",
            "models.weight_decay=0.1",
            "augmentation=none",
            "weights.pretrained=none",
            "logger=csv",
            "lightning.accelerator=cpu",
            "lightning.check_val_every_n_epoch=100",
            "finetuning.budget=fixed",
        ],
        CONF,
    )
    setup = prepare(settings, discover(settings.datasets), preview=True)
    data = CasesDataModule(setup.split, settings.datasets, setup.anatomy.divisor, seed=0)
    watch = Watch(setup.anatomy)
    trainer = make_trainer(
        settings.lightning,
        settings.logger,
        folder,
        setup.schedule.max_epochs,
        [watch, AveragedWeights(0.9)],
    )
    module = build_module(setup.job, data.steps_per_epoch(1, 1))
    run_trainer(trainer, module, data, resume_from=None)
    return setup.schedule, watch


@pytest.fixture(scope="module", params=NETWORKS)
def fits(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Schedule, Watch]]:
    """A fit of a network for each mode."""
    folder = tmp_path_factory.mktemp("fits")
    return {mode: watched(data, folder, request.param, mode) for mode in ("both", "encoder")}


@pytest.mark.parametrize("mode", ["both", "encoder"])
def test_the_graph_starts_at_the_first_block_that_trains(
    fits: dict[str, tuple[Schedule, Watch]], mode: str
) -> None:
    schedule, watch = fits[mode]
    assert len(watch.in_graph) == schedule.max_epochs == len(schedule.stages)
    for epoch, in_graph in enumerate(watch.in_graph):
        trains = schedule.trainable(epoch)
        first = min(schedule.blocks.index(name) for name in trains)
        assert set(in_graph) == set(schedule.blocks)
        for block in schedule.blocks[:first]:
            assert in_graph[block] == {False}, f"{block} in epoch {epoch}"
        assert True in in_graph[schedule.blocks[first]]


@pytest.mark.parametrize("mode", ["both", "encoder"])
def test_frozen_blocks_have_no_gradient_and_no_moments(
    fits: dict[str, tuple[Schedule, Watch]], mode: str
) -> None:
    schedule, watch = fits[mode]
    unfrozen: set[str] = set()
    for epoch in range(schedule.max_epochs):
        unfrozen |= schedule.trainable(epoch)
        assert watch.with_gradient[epoch] == schedule.trainable(epoch)
        assert watch.with_moments[epoch] == unfrozen


def test_activations_of_the_frozen_prefix_are_not_kept(
    fits: dict[str, tuple[Schedule, Watch]],
) -> None:
    _, watch = fits["both"]
    assert watch.kept_bytes == sorted(watch.kept_bytes)
    assert watch.kept_bytes[0] < 0.5 * watch.kept_bytes[-1]
