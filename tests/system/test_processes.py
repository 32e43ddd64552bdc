"""Several processes make one run."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.build import build
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from tests.conftest import CONF, FAST
from tests.training.test_unfreeze import PRESETS

ROOT = CONF.parents[1]

EVERY_EPOCH_ALIKE = """
import sys
import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector
from hsf_finetune.config.compose import compose
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.training.callbacks import TrainingProgress

started, said = TrainingProgress.on_train_epoch_start, TrainingProgress.on_train_epoch_end
before = {}

def weights(block):
    return torch.cat([p.detach().flatten() for p in block.parameters()])

def kept(self, trainer, module):
    before.update({block.name: weights(block).clone() for block in module.anatomy.blocks})
    started(self, trainer, module)

def compared(self, trainer, module):
    own = parameters_to_vector(module.network.parameters()).detach()
    others = [torch.empty_like(own) for _ in range(trainer.world_size)]
    dist.all_gather(others, own)
    assert all(torch.equal(own, other) for other in others), "the processes differ"
    trains = module.schedule.trainable(trainer.current_epoch)
    for block in module.anatomy.blocks:
        moved = not torch.equal(weights(block), before[block.name])
        expected = block.name in trains or ("norms" in trains and bool(block.norms()))
        assert moved == expected, (block.name, trainer.current_epoch)
    said(self, trainer, module)

TrainingProgress.on_train_epoch_start, TrainingProgress.on_train_epoch_end = kept, compared
for job in sys.argv[2:]:
    run_experiment(compose("finetune", job.split("|"), sys.argv[1]))
"""


def together(arguments: Sequence[str], processes: int = 2) -> list[str]:
    """Starts all processes at once, as torchrun does; returns what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={
                **os.environ,
                **common,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    failed = [
        f"process {rank} ended with {process.returncode}:\n{error[-3000:]}"
        for rank, (process, (_, error)) in enumerate(zip(running, said, strict=True))
        if process.returncode
    ]
    assert not failed, "\n".join(failed)
    return [out for out, _ in said]


def job(data: Path, outputs: Path, *more: str) -> list[str]:
    return [
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        "finetuning.pretrained=none",
        *FAST,
        *more,
    ]


TWO = ("datasets.batch_size=1", "lightning=ddp", "lightning.devices=2")


def test_two_processes_share_a_folder_and_cross_a_unfreeze(data: Path, outputs: Path) -> None:
    command = [sys.executable, str(ROOT / "finetune.py"), "--config-dir", str(CONF)]
    unfreeze = ("finetuning.depth=1", "finetuning.unfreeze_frequency=1")
    done = subprocess.run(
        [*command, *job(data, outputs, *TWO, *unfreeze)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("new run:") == 1, "only one process talks"
    (run,) = outputs.iterdir()
    assert (run / "result.json").exists()
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    # Three training cases on two processes are two steps an epoch.
    assert saved["global_step"] == 4


def test_processes_agree_after_every_epoch_of_every_preset(data: Path, outputs: Path) -> None:
    jobs = [
        "|".join(
            job(
                data,
                outputs,
                *TWO,
                "models.channels=[4,4,4,4]",
                "models.strides=[2,2,2]",
                "datasets.k_sample=4",
                "models.lr=1e-6",
                f"finetuning={preset}",
                f"name={preset}",
                *overrides,
            )
        )
        for preset, overrides in PRESETS.items()
    ]
    leader, other = together(["-c", EVERY_EPOCH_ALIKE, str(CONF), *jobs])
    assert leader.count("new run:") == len(PRESETS)
    assert "new run" not in other
    assert len([*outputs.glob("*/result.json")]) == len(PRESETS)
    assert not [*outputs.glob(".run*")], "the note for the other processes is gone"
    ended = [
        torch.load(p, weights_only=True)["callbacks"]["Stages"]["history"]["ended"]
        for p in outputs.glob("*gradual/checkpoints/last.ckpt")
    ]
    assert any(ended), "no plateau came"


def logits_of(run: Path, image: torch.Tensor) -> torch.Tensor:
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert checkpoint.meta is not None
    card = ModelCard.from_dict(checkpoint.meta)
    network = build(card.models, card.in_channels, len(card.classes)).network
    network.load_state_dict(dict(checkpoint.tensors))
    with torch.no_grad():
        logits: torch.Tensor = network.eval()(image)
    return logits


def test_two_processes_with_half_the_batch_equal_one(data: Path, tmp_path: Path) -> None:
    unfreeze = ["finetuning.depth=1", "finetuning.unfreeze_frequency=2"]
    same = [*unfreeze, "datasets.k_sample=6", "finetuning.ema_decay=null"]
    one, two = tmp_path / "one", tmp_path / "two"
    script = [str(ROOT / "finetune.py"), "--config-dir", str(CONF)]
    together([*script, *job(data, two, *TWO, *same)])
    alone = ["datasets.batch_size=2", "lightning.devices=1"]
    together([*script, *job(data, one, *alone, *same)], processes=1)
    image = torch.randn(1, 1, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    logits, dice = [], []
    for root in (one, two):
        (run,) = root.iterdir()
        logits.append(logits_of(run, image))
        with (run / "metrics.csv").open() as file:
            dice.append([float(row["val/dice"]) for row in csv.DictReader(file)])
    # Weights in front of an instance norm have no say, so that only what comes out counts.
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-3)
    assert dice[0] == pytest.approx(dice[1], abs=2e-3)
