"""Every precision of Lightning either trains, and can be resumed, or is refused before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.config.settings.engine_settings import Precision
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF, FAST
from tests.training.killing import run_until_killed

REFUSED = {
    "16-true": "float16 cannot be trained",
    "transformer-engine": "does not accept",
    "transformer-engine-float16": "float16 cannot be trained",
}


def settings(data: Path, run_dir: Path, precision: str, *more: str) -> Settings:
    overrides = [
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"run_dir={run_dir}",
        "datasets.k_sample=4",
        "datasets.batch_size=2",
        "finetuning=full",
        "finetuning.pretrained=none",
        "lightning.max_epochs=2",
        "models.lr=1e-2",
        "calibration=off",
        *FAST,
        f"lightning.precision={precision}",
        "augmentation=mri",
        *more,
    ]
    return compose("finetune", overrides, CONF)


def last(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_precision_trains_or_is_refused(data: Path, tmp_path: Path, precision: str) -> None:
    asked = settings(data, tmp_path / "run", precision)
    if precision in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[precision]):
            run_experiment(asked)
        assert not (tmp_path / "run").exists()
        return
    assert run_experiment(asked).after
    least = 64 if "64" in precision else 32
    averages = [
        one for one in last(tmp_path / "run")["state_dict"].values() if one.is_floating_point()
    ]
    assert {torch.finfo(one.dtype).bits for one in averages} == {least}
    if precision == "bf16-true":
        assert any((one != one.bfloat16()).any() for one in averages)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_run_of_another_precision_is_resumed(data: Path, tmp_path: Path, precision: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_experiment(settings(data, whole, precision))
    run_until_killed(settings(data, killed, precision), 1)
    run_experiment(settings(data, killed, precision, f"resume={killed}"))
    for part in ("state_dict", "current_model_state"):
        for name, tensor in last(whole)[part].items():
            assert torch.equal(last(killed)[part][name], tensor), f"{part}: {name}"
