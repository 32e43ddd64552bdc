"""Checkpoints of earlier versions can be resumed: callbacks find their state by the same keys."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import Callback
from rich.console import Console

from hsf_finetune.schedule.stages import Schedule, Stage
from hsf_finetune.training.averaging import AveragedWeights
from hsf_finetune.training.callbacks import DivergenceCheck
from hsf_finetune.training.l2sp import L2SPRegulariser
from hsf_finetune.training.stage_control import StageControl
from hsf_finetune.training.trainer import checkpoint_callbacks


def test_the_state_keys_are_those_of_version_0_1_0(tmp_path: Path) -> None:
    schedule = Schedule("full", ("head",), (Stage({"head": 1e-3}, 1),))
    callbacks: list[Callback] = [
        AveragedWeights(0.9),
        DivergenceCheck(Console(), share=0.2),
        L2SPRegulariser(0.1, tmp_path / "start.ckpt"),
        StageControl(schedule, tmp_path / "stage.ckpt"),
    ]
    assert [callback.state_key for callback in callbacks] == [
        "WarmAverage",
        "DivergenceGuard",
        "TowardsStart",
        "Stages",
    ]
    keys = [callback.state_key for callback in checkpoint_callbacks(tmp_path)]
    assert all(key.startswith("MovableCheckpoint{'monitor': ") for key in keys)
