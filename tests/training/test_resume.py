"""A run that is killed and resumed ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.configuration import compose
from hsf_finetune.run import execute
from hsf_finetune.settings import Settings
from tests.conftest import CONF, NETWORK

EPOCHS = 4

KILLER = """
import os, signal, sys
from hsf_finetune.training.module import SegmentationModule

step = SegmentationModule.training_step
def fatal_step(self, batch, batch_idx):
    if self.current_epoch == int(sys.argv[1]) and batch_idx == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
SegmentationModule.training_step = fatal_step

from hsf_finetune.configuration import compose
from hsf_finetune.run import execute
execute(compose("finetune", sys.argv[3:], sys.argv[2]))
"""


def overrides(data: Path, run_dir: Path) -> list[str]:
    """Two stages of two epochs of three steps, with everything random switched on."""
    return [
        "datasets=tiny",
        f"datasets.main_path={data}",
        "datasets.k_sample=6",
        "datasets.batch_size=2",
        f"datasets.output_path={run_dir.parent}",
        f"run_dir={run_dir}",
        "finetuning.pretrained=none",
        "finetuning.depth=1",
        "finetuning.unfreeze_frequency=2",
        "augmentation.affine_p=0.9",
        "models.dropout=0.2",
        "models.lr=1e-2",
        "logger=csv",
        "lightning.accelerator=cpu",
        "lightning.threads=1",
        *NETWORK,
    ]


def settings_of(data: Path, run_dir: Path, *more: str) -> Settings:
    return compose("finetune", [*overrides(data, run_dir), *more], CONF)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    execute(settings_of(data, folder))
    return last(folder)


def last(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


@pytest.mark.parametrize(
    ("epoch", "resume"), [*((epoch, "path") for epoch in range(EPOCHS)), (2, "auto")]
)
def test_killed_and_resumed_equals_uninterrupted(
    data: Path, tmp_path: Path, uninterrupted: dict[str, Any], epoch: int, resume: str
) -> None:
    run_dir = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, str(epoch), str(CONF), *overrides(data, run_dir)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CONF.parents[1])},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    result = execute(
        settings_of(data, run_dir, f"resume={run_dir if resume == 'path' else 'auto'}")
    )
    assert result.folder == run_dir.resolve()
    resumed = last(run_dir)
    for part in ("state_dict", "current_model_state"):
        assert resumed[part].keys() == uninterrupted[part].keys()
        for name, tensor in uninterrupted[part].items():
            assert torch.equal(resumed[part][name], tensor), f"{part}: {name}"
    assert resumed["epoch"] == uninterrupted["epoch"] == EPOCHS - 1
    assert_same(resumed["optimizer_states"], uninterrupted["optimizer_states"])
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(EPOCHS))]


def assert_same(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)  # type: ignore[arg-type]
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple))
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_killed_after_the_last_epoch_only_the_scores_are_made(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = execute(settings_of(data, run_dir))
    (run_dir / "result.json").unlink()
    before = last(run_dir)
    second = execute(settings_of(data, run_dir, f"resume={run_dir}"))
    assert second.after == first.after
    assert_same(last(run_dir)["state_dict"], before["state_dict"])
    assert (run_dir / "result.json").exists()
