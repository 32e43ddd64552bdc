"""Several processes make one run."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from torch.nn.utils import parameters_to_vector

import hsf_finetune.report.save_report  # noqa: F401  # so that forks need not import it
from hsf_finetune.config.compose import compose
from hsf_finetune.experiment import run
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Block
from hsf_finetune.networks.build import build
from hsf_finetune.planning.setup import Setup
from hsf_finetune.system import processes
from hsf_finetune.system.atomic_files import read_csv
from hsf_finetune.system.errors import DataError
from hsf_finetune.training.callbacks import TrainingProgress
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from tests.conftest import CONF, FAST
from tests.training.test_unfreeze import PRESETS

ROOT = CONF.parents[1]

Task = Callable[..., None]


def run_settings(config_dir: Path, *jobs: Sequence[str]) -> None:
    """Makes runs one after the other, as `finetune` does."""
    for overrides in jobs:
        run_experiment(compose("finetune", overrides, config_dir))


def compare_every_epoch(config_dir: Path, *jobs: Sequence[str]) -> None:
    """Makes runs; their processes agree after each epoch, and exactly what is to train moves."""
    started, said = TrainingProgress.on_train_epoch_start, TrainingProgress.on_train_epoch_end
    before: dict[str, torch.Tensor] = {}

    def weights(block: Block) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in block.parameters()])

    def kept(self: TrainingProgress, trainer: L.Trainer, module: Any) -> None:
        before.update({block.name: weights(block).clone() for block in module.anatomy.blocks})
        started(self, trainer, module)

    def compared(self: TrainingProgress, trainer: L.Trainer, module: Any) -> None:
        own = parameters_to_vector(module.network.parameters()).detach()
        others = [torch.empty_like(own) for _ in range(trainer.world_size)]
        torch.distributed.all_gather(others, own)
        assert all(torch.equal(own, other) for other in others), "the processes differ"
        trains = module.schedule.trainable(trainer.current_epoch)
        for block in module.anatomy.blocks:
            moved = not torch.equal(weights(block), before[block.name])
            expected = block.name in trains or ("norms" in trains and bool(block.norms()))
            assert moved == expected, (block.name, trainer.current_epoch)
        said(self, trainer, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingProgress, "on_train_epoch_start", kept)
        patch.setattr(TrainingProgress, "on_train_epoch_end", compared)
        run_settings(config_dir, *jobs)


def meet_fate(victim: int, fate: str, overrides: Sequence[str]) -> None:
    """Makes a run of which one process is late, is killed or fails, before or after signs of life."""
    prepare = run.prepare

    def delayed(*given: Any, **more: Any) -> Setup:
        setup = prepare(*given, **more)
        if processes.rank() == victim:
            beats = {"late": 15, "failed at once": 0}.get(fate, 4)
            time.sleep(beats * processes.BEAT_S)
            if fate == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if fate.startswith("failed"):
                raise DataError("the disk fell off")
        return setup

    with pytest.MonkeyPatch.context() as patch:
        # Whoever is late on a busy machine must not be taken for dead.
        patch.setattr(processes, "BEAT_S", 1.0 if fate == "late" else 0.5)
        patch.setattr(run, "prepare", delayed)
        if fate == "failed at once" and processes.rank() != victim:
            time.sleep(8 * processes.BEAT_S)
        run_settings(CONF, overrides)


def be_terminated(both: bool, overrides: Sequence[str]) -> None:
    """Makes a run whose first process gets SIGTERM, the other one while it waits for the first."""

    def terminated(*_: Any) -> None:
        send = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
        if processes.rank() == 0:
            send.function(*send.args)
        elif both:
            send.start()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "BEAT_S", 0.5)
        patch.setattr(TrainingProgress, "on_train_batch_start", terminated, raising=False)
        run_settings(CONF, overrides)


def together(folder: Path, task: Task, *arguments: Any) -> list[str]:
    """Runs a task in two processes at once; returns what each printed."""
    ended = outcomes(folder, task, *arguments)
    failed = [
        f"process {rank} ended with {code}:\n{text[-3000:]}"
        for rank, (code, text) in enumerate(ended)
        if code
    ]
    assert not failed, "\n".join(failed)
    return [text for _, text in ended]


def outcomes(folder: Path, task: Task, *arguments: Any) -> list[tuple[int, str]]:
    """Exit code and text of two processes, which are told of each other as by torchrun.

    They are forks, which need not import PyTorch.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    texts = [folder / f"process_{rank}.txt" for rank in range(2)]
    context = multiprocessing.get_context("fork")
    running = [
        context.Process(target=_run_as, args=(rank, port, text, task, arguments))
        for rank, text in enumerate(texts)
    ]
    try:
        for process in running:
            process.start()
        for process in running:
            process.join(timeout=600)
            assert process.exitcode is not None, "no end within 600 s"
    finally:
        for process in running:
            process.kill()
    return [(p.exitcode or 0, t.read_text()) for p, t in zip(running, texts, strict=True)]


def _run_as(rank: int, port: int, text: Path, task: Task, arguments: Sequence[Any]) -> None:
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {**world, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    with text.open("w", buffering=1) as file:
        sys.stdout = sys.stderr = file
        try:
            task(*arguments)
        except Exception:
            traceback.print_exc()
            raise


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


def test_processes_agree_after_every_epoch_of_every_preset(
    data: Path, outputs: Path, tmp_path: Path
) -> None:
    jobs = [
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
        for preset, overrides in PRESETS.items()
    ]
    leader, other = together(tmp_path, compare_every_epoch, CONF, *jobs)
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


def mixed_cohorts(folder: Path) -> Path:
    """Configuration of two cohorts: one draws both classes, the other merges and ignores."""
    config: dict[str, Any] = yaml.safe_load((CONF / "datasets" / "tiny.yaml").read_text())
    fine = config["datasets"].pop("tiny")
    image, label = "_T2w.nii.gz", "_dseg.nii.gz"
    for name, subjects in (("fine", "[1-3]"), ("merged", "[45]")):
        files = {"mri": f"sub-0{subjects}/*{image}", "label": f"sub-0{subjects}/*{label}"}
        config["datasets"][name] = {**fine, "patterns": {"t2": files}}
    config["datasets"]["merged"] |= {
        "labels": {10: 1},
        "labels_names": {1: "both"},
        "label_sets": {"both": ["anterior", "posterior"]},
        "ignore": [20],
        "weight": 1.0,
    }
    (folder / "datasets").mkdir()
    (folder / "datasets" / "mixed.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(["datasets.train_ratio=0.4"], id="three validation cases"),
        pytest.param(["datasets.train_ratio=0.8"], id="one validation case"),
        pytest.param(["datasets=mixed", "models.use_forgiving_loss=true"], id="mixed protocols"),
    ],
)
def test_two_processes_with_half_the_batch_equal_one(
    data: Path, tmp_path: Path, more: list[str]
) -> None:
    unfreeze = ["finetuning.depth=1", "finetuning.unfreeze_frequency=2"]
    same = [*unfreeze, "datasets.k_sample=6", "finetuning.ema_decay=null", *more]
    one, two = tmp_path / "one", tmp_path / "two"
    conf = mixed_cohorts(tmp_path) if "datasets=mixed" in more else CONF
    together(tmp_path, run_settings, conf, job(data, two, *TWO, *same))
    alone = ["datasets.batch_size=2", "lightning.devices=1"]
    run_settings(conf, job(data, one, *alone, *same))
    image = torch.randn(1, 1, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    logits, dice = [], []
    for root in (one, two):
        (run,) = root.iterdir()
        assert (run / "result.json").exists()
        logits.append(logits_of(run, image))
        with (run / "metrics.csv").open() as file:
            dice.append([float(row["val/dice"]) for row in csv.DictReader(file)])
        names = [case for case, *_ in read_csv(run / "validation_scores.csv")[1:]]
        assert (len(set(names)) == 1) == ("datasets.train_ratio=0.8" in more)
    # Weights in front of an instance norm have no say, so that only what comes out counts.
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-3)
    assert dice[0] == pytest.approx(dice[1], abs=2e-3)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("fate", ["killed", "failed", "failed at once"])
def test_a_process_that_dies_ends_the_others(
    data: Path, outputs: Path, tmp_path: Path, victim: int, fate: str
) -> None:
    begun = time.monotonic()
    ended = outcomes(tmp_path, meet_fate, victim, fate, job(data, outputs, *TWO))
    assert all(code for code, _ in ended)
    assert time.monotonic() - begun < 120
    reason = "gave no sign of life" if fate == "killed" else "failed: the disk fell off"
    assert f"process {victim} {reason}" in ended[1 - victim][1]
    assert not [*outputs.glob(".run*")], "the signs of life are gone"


@pytest.mark.parametrize("both", [False, True])
def test_processes_that_are_terminated_end(
    data: Path, outputs: Path, tmp_path: Path, both: bool
) -> None:
    begun = time.monotonic()
    ended = outcomes(tmp_path, be_terminated, both, job(data, outputs, *TWO))
    assert all(code for code, _ in ended)
    assert time.monotonic() - begun < 120
    assert not [*outputs.glob(".run*")], "the signs of life are gone"


def test_a_process_that_takes_long_is_waited_for(data: Path, outputs: Path, tmp_path: Path) -> None:
    short = job(data, outputs, *TWO, "lightning.max_epochs=1")
    together(tmp_path, meet_fate, 0, "late", short)
    assert len([*outputs.glob("*/result.json")]) == 1
    assert not [*outputs.glob(".run*")]
