"""The precision that a processor computes fastest in, and that a run keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.planning import auto_precision
from hsf_finetune.planning.dry_run import DryRunCost
from hsf_finetune.planning.plan_run import plan_run
from hsf_finetune.system.errors import DataError
from hsf_finetune.training import train
from hsf_finetune.training.train import TrainingJob
from tests.conftest import CONF, FAST


def settings_of(data: Path, *more: str) -> Settings:
    own = ["datasets=tiny", f"datasets.main_path={data}", "finetuning.pretrained=none"]
    auto = ["lightning.precision=auto", "lightning.max_epochs=1", *more]
    return compose("finetune", [*own, *FAST, *auto], CONF)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Precisions of trainers that train runs, on a CPU that says that it computes in bfloat16."""
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(auto_precision, "computes_bf16", lambda _: True)
    found: list[str] = []
    make_trainer = train.make_trainer

    def make(engine: Any, *given: Any, **more: Any) -> Any:
        found.append(engine.precision)
        return make_trainer(engine, *given, **more)

    monkeypatch.setattr(train, "make_trainer", make)
    return found


@pytest.mark.parametrize("rounded_s", [6.0, 1.0, 0.9])
def test_what_is_not_clearly_faster_is_not_chosen(
    data: Path,
    outputs: Path,
    made: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rounded_s: float,
) -> None:
    measured: list[str] = []

    def measure(job: TrainingJob, *_: Any, **__: Any) -> DryRunCost:
        precision = job.settings.lightning.precision
        measured.append(precision)
        step_s = 1.0 if precision == "32-true" else rounded_s
        return DryRunCost(2 * step_s, step_s, 0.0, 0.0, 0, 0)

    monkeypatch.setattr(auto_precision, "measure_stage", measure)
    run = run_experiment(settings_of(data, f"datasets.output_path={outputs}"))
    assert measured == ["32-true", "bf16-mixed"] * 2
    assert made == ["32-true"]
    said = f"precision: 32-true, since a step in bfloat16 is {1 / rounded_s:.2f} times as fast"
    assert said in capsys.readouterr().out
    assert json.loads((run.folder / "forecast.json").read_text())["precision"] == "32-true"


def test_a_damaged_choice_of_a_run_is_refused(
    data: Path, outputs: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_precision, "_step_s", lambda *_: 0.001)
    run = run_experiment(settings_of(data, f"datasets.output_path={outputs}"))
    (run.folder / "forecast.json").write_text("[")
    more = settings_of(data, f"datasets.output_path={outputs}", f"resume={run.folder}")
    longer = more.lightning.model_copy(update={"max_epochs": 2})
    with pytest.raises(DataError, match=r"forecast\.json"):
        run_experiment(more.model_copy(update={"lightning": longer}))


@pytest.mark.parametrize("kept", ["{", '{"times_as_fast": NaN}', '{"times_as_fast": -1}'])
def test_a_damaged_measurement_is_made_again(
    data: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    setup = plan_run(settings_of(data))
    file = auto_precision._kept_file(setup, auto_precision._timed_volume(setup))
    file.parent.mkdir(parents=True)
    file.write_text(kept)
    taken = iter([3.0, 2.0])
    monkeypatch.setattr(auto_precision, "_step_s", lambda *_: next(taken))
    chosen = auto_precision.with_precision(setup).settings.lightning.precision
    assert chosen == "bf16-mixed"


def test_what_was_measured_is_not_measured_again(
    data: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = iter([3.0, 2.0])
    monkeypatch.setattr(auto_precision, "_step_s", lambda *_: next(taken))

    def chosen(*more: str) -> str:
        setup = auto_precision.with_precision(plan_run(settings_of(data, *more)))
        return setup.settings.lightning.precision

    assert chosen() == chosen("seed=5") == chosen("models.lr=1e-2") == "bf16-mixed"
    assert chosen("finetuning=linear") == chosen("datasets.train_ratio=0.8") == "bf16-mixed"
    taken = iter([2.0, 4.0])
    assert chosen("models.channels=[4,16]") == "32-true"
    assert chosen() == "bf16-mixed"


def test_short_steps_are_not_rounded(
    data: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = iter([0.01])
    monkeypatch.setattr(auto_precision, "_step_s", lambda *_: next(taken))
    setup = plan_run(settings_of(data))
    for _ in range(2):
        assert auto_precision.with_precision(setup).settings.lightning.precision == "32-true"


def test_a_step_is_timed_in_both_precisions(data: Path) -> None:
    setup = plan_run(settings_of(data))
    for precision in ("32-true", "bf16-mixed"):
        rounded = auto_precision._with(setup, precision)
        volumes = auto_precision._timed_volume(rounded)
        assert auto_precision._step_s(rounded, volumes) > 0


@pytest.mark.parametrize(
    ("largest", "timed"), [(16**3, (16, 16, 16)), (1000, (8, 8, 8)), (0, (4, 4, 4))]
)
def test_large_patches_are_halved_until_steps_are_quickly_timed(
    data: Path, monkeypatch: pytest.MonkeyPatch, largest: int, timed: tuple[int, ...]
) -> None:
    monkeypatch.setattr(auto_precision, "_LARGEST_VOX", largest)
    setup = plan_run(settings_of(data, "datasets.patch_vox=[16,16,16]"))
    assert auto_precision._timed_volume(setup).patch_vox == timed


def test_what_is_faster_is_chosen_and_a_resumed_run_has_it(
    data: Path,
    outputs: Path,
    made: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken = iter([2.6, 2.0])  # seconds in 32 bits, and in bfloat16
    monkeypatch.setattr(auto_precision, "_step_s", lambda *_: next(taken))
    run = run_experiment(settings_of(data, f"datasets.output_path={outputs}"))
    # It is resumed on another machine.
    monkeypatch.setattr(auto_precision, "computes_bf16", lambda _: False)
    more = settings_of(data, f"datasets.output_path={outputs}", f"resume={run.folder}")
    run_experiment(
        more.model_copy(update={"lightning": more.lightning.model_copy(update={"max_epochs": 2})})
    )
    assert made == ["bf16-mixed", "bf16-mixed"]
    assert (
        "began in bf16-mixed, for which this machine has no arithmetic" in capsys.readouterr().out
    )
    saved = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert {value.dtype for value in saved["state_dict"].values()} == {torch.float32}


@pytest.mark.parametrize(
    "more", [["lightning.precision=bf16-mixed"], ["lightning.devices=2", "lightning=ddp"], []]
)
def test_where_nothing_is_to_be_decided_nothing_is_measured(
    data: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr(auto_precision, "computes_bf16", lambda _: bool(more))
    monkeypatch.setattr(auto_precision, "_step_s", pytest.fail)
    settings = settings_of(data, *more)
    setup = auto_precision.with_precision(plan_run(settings))
    assert setup.settings.lightning.precision == settings.lightning.precision


def test_the_precision_that_auto_stands_for_is_kept(
    data: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_precision, "computes_bf16", lambda _: False)
    run = run_experiment(settings_of(data, f"datasets.output_path={outputs}"))
    assert json.loads((run.folder / "forecast.json").read_text())["precision"] == "32-true"
