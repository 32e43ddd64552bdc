"""What a resumed run starts anew, and what it keeps."""

from __future__ import annotations

import shutil
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.training.module import SegmentationModule
from tests.conftest import CONF, FAST
from tests.training.killing import run_until_killed

PARTS = ("optimizer", "scheduler", "epoch")
COMBINATIONS = [*chain.from_iterable(combinations(PARTS, n) for n in range(4))]
STEPS = 2
KILLED_IN = 4


def settings_of(data: Path, run_dir: Path, *more: str) -> Settings:
    return compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            "datasets.batch_size=2",
            f"run_dir={run_dir}",
            f"datasets.output_path={run_dir.parent}",
            "finetuning=full",
            "finetuning.pretrained=none",
            "finetuning.warmup=0.5",
            "lightning.max_epochs=6",
            *FAST,
            *more,
        ],
        CONF,
    )


@pytest.fixture(scope="module")
def interrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its fifth epoch of six."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    run_until_killed(settings_of(data, folder), KILLED_IN)
    return folder


class FirstStep:
    """What a resumed run looks like when it makes its first step."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def look(self, module: SegmentationModule) -> None:
        if self.seen:
            return
        optimizer = module.trainer.optimizers[0]
        self.seen = {
            "epoch": module.current_epoch,
            "moments": len(optimizer.state),
            "rate": optimizer.param_groups[0]["lr"],
            "weights": {k: v.clone() for k, v in module.network.state_dict().items()},
        }


@pytest.fixture
def first_step(monkeypatch: pytest.MonkeyPatch) -> FirstStep:
    found = FirstStep()
    step = SegmentationModule.training_step

    def training_step(self: SegmentationModule, batch: Any, batch_idx: int) -> Any:
        found.look(self)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    return found


@pytest.mark.parametrize("reset", COMBINATIONS, ids=lambda c: "+".join(c) or "nothing")
def test_what_is_named_starts_anew_and_the_rest_goes_on(
    data: Path, tmp_path: Path, interrupted: Path, first_step: FirstStep, reset: tuple[str, ...]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(interrupted, run_dir)
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    given = [f"reset=[{','.join(reset)}]"] if reset else []
    run_experiment(settings_of(data, run_dir, f"resume={run_dir}", *given))
    seen = first_step.seen

    raw = checkpoint["current_model_state"]
    assert all(torch.equal(raw[f"network.{k}"], v) for k, v in seen["weights"].items())
    assert (seen["moments"] == 0) == ("optimizer" in reset)
    assert seen["epoch"] == (0 if "epoch" in reset else KILLED_IN)
    # The first group is encoder1, three blocks from the head; half of the epochs rise.
    peak = 1e-3 * 0.9**3
    left = 6 if "epoch" in reset else 6 - KILLED_IN
    anew = peak / (left * STEPS // 2 + 1)
    kept = peak * 0.75
    assert seen["rate"] == pytest.approx(anew if "scheduler" in reset else kept)


def test_after_a_reset_of_the_epoch_the_curves_so_far_are_kept(
    data: Path, tmp_path: Path, interrupted: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(interrupted, run_dir)
    before = (run_dir / "metrics.csv").read_text()
    run_experiment(settings_of(data, run_dir, f"resume={run_dir}", "reset=[epoch,scheduler]"))
    assert (run_dir / "metrics_until_epoch_4.csv").read_text() == before
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(e) for e in range(6)]


def test_reset_without_resume_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only a run that is resumed can be reset"):
        run_experiment(settings_of(data, tmp_path / "run", "reset=[epoch]"))


# ------------------------------------------------------------------ longer runs
def test_a_finished_run_goes_on_for_longer(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_experiment(settings_of(data, run_dir, "lightning.max_epochs=2"))
    result = (run_dir / "result.json").read_text()
    run_experiment(settings_of(data, run_dir, "lightning.max_epochs=5", f"resume={run_dir}"))
    assert (run_dir / "result_until_epoch_2.json").read_text() == result
    assert (run_dir / "config_until_epoch_2.yaml").exists()
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(e) for e in range(5)]
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 4
    assert checkpoint["global_step"] == 5 * STEPS


def test_a_run_that_a_plateau_ended_goes_on_for_longer(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    still = ["finetuning=linear", "models.lr=1e-9", "finetuning.gradual_patience=2"]
    more = ["finetuning.linear_probe_epochs=20"]
    run_experiment(settings_of(data, run_dir, *still, *more, "lightning.max_epochs=9"))
    ended = len((run_dir / "metrics.csv").read_text().splitlines()) - 1
    assert ended == 3
    longer = ["lightning.max_epochs=12", f"resume={run_dir}"]
    run_experiment(settings_of(data, run_dir, *still, *more, *longer))
    assert len((run_dir / "metrics.csv").read_text().splitlines()) - 1 == ended + 2


@pytest.mark.parametrize("epochs", ["1", "2"])
def test_a_run_does_not_become_shorter(data: Path, tmp_path: Path, epochs: str) -> None:
    run_dir = tmp_path / "run"
    run_experiment(settings_of(data, run_dir, "lightning.max_epochs=2"))
    with pytest.raises(ConfigError, match=r"no more than the 2 epochs|has ended"):
        run_experiment(
            settings_of(data, run_dir, f"lightning.max_epochs={epochs}", f"resume={run_dir}")
        )
    assert (run_dir / "result.json").exists()
