"""The forecast: of the right order, without a trace, and with a way out where it does not fit."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.planning import auto_sizes, forecast_run
from hsf_finetune.planning.auto_sizes import StepCost, choose_sizes
from hsf_finetune.planning.dry_run import DryVolumes, measure_stage
from hsf_finetune.planning.epoch_volumes import count_epoch_volumes
from hsf_finetune.planning.forecast_run import make_forecast
from hsf_finetune.planning.plan_run import preview_run
from hsf_finetune.planning.setup import Setup, prepare
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF, FAST, SHAPE

BY_VALIDATION = "finetuning.budget=validation"


def settings(data: Path, *more: str) -> Settings:
    return compose(
        "train",
        ["datasets=tiny", f"datasets.main_path={data}", *FAST, "lightning.max_epochs=1", *more],
        CONF,
    )


def prepared(given: Settings) -> Setup:
    return prepare(given, discover(given.datasets, given.models), preview=True)


def test_it_leaves_no_trace(data: Path) -> None:
    job = prepared(settings(data)).job
    before = {n: t.clone() for n, t in job.anatomy.network.state_dict().items()}
    random = torch.get_rng_state()
    cost = measure_stage(job, 0, DryVolumes(2, (8, 8, 8), (8, 8, 8)))
    assert cost.step_s > 0
    assert cost.validation_s > 0
    assert cost.host_bytes > 50e6
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in job.anatomy.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in job.anatomy.network.parameters())


def test_larger_batches_take_longer(data: Path) -> None:
    job = prepared(settings(data, "models.channels=[8,16]")).job
    # Of this thread alone: other programs do not lengthen it.
    small, large = (
        measure_stage(job, 0, DryVolumes(n, (32, 32, 32), (8, 8, 8)), clock=time.thread_time).step_s
        for n in (1, 8)
    )
    assert large > 2 * small


def with_datasets(setup: Setup, **changed: object) -> Setup:
    data = setup.settings.datasets.model_copy(update=changed)
    return replace(setup, settings=setup.settings.model_copy(update={"datasets": data}))


def test_the_volumes_of_an_epoch_follow_from_headers(data: Path) -> None:
    setup = prepared(settings(data, "datasets.k_sample=7", "datasets.train_ratio=0.6"))
    whole = count_epoch_volumes(setup, (128, 128, 128), 2)
    assert whole.typical_vox == whole.largest_vox == whole.volume_vox == SHAPE
    assert whole.batches == 4
    assert whole.volumes == len(setup.split.validation) == 2
    assert count_epoch_volumes(setup, (8, 100, 8), 1).typical_vox == (8, 24, 8)
    how = setup.card.preprocessing.model_copy(
        update={"spacing_mm": (0.4, 0.5, 0.6), "window_vox": (16, 24, 16)}
    )
    finer = replace(setup, card=replace(setup.card, preprocessing=how))
    windows = count_epoch_volumes(finer, (128, 128, 128), 1)
    assert windows.typical_vox == (32, 48, 32)
    # Three half-overlapping windows along each axis.
    assert windows.volumes == 2 * 27


def test_it_is_printed_and_kept(
    data: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(data, f"datasets.output_path={outputs}", "lightning.forecast=true")
    folder = run_experiment(given).folder
    said = capsys.readouterr().out
    size = "x".join(map(str, SHAPE))
    assert f"forecast, from dry steps of 2 x {size} voxels" in said  # not of the largest patch
    assert "(other programs make them longer)" in said
    assert "for each of" not in said
    assert "an epoch takes about" in said
    kept = json.loads((folder / "forecast.json").read_text())
    assert kept["stages"][0]["seconds"] > 0
    assert kept["host_bytes"] > 1e8
    preview_run(given, forecast=True)
    assert "forecast, from dry steps of 2 x" in capsys.readouterr().out
    folds = settings(data, "datasets.fold=all", "datasets.train_val_test_idx=null")
    subjects = len(preview_run(folds, forecast=True).split.train) + 1
    said = capsys.readouterr().out
    assert f"for each of {subjects + 1} runs: {subjects} folds and a final model" in said


def test_only_a_plateau_ends_a_run_early(data: Path) -> None:
    found = {
        name: make_forecast(prepared(settings(data, f"finetuning={name}", BY_VALIDATION)))
        for name in ("default", "linear")
    }
    assert not found["default"].may_end_early
    assert "a plateau may end them earlier" in " ".join(found["linear"].lines())


def test_smaller_dry_steps_are_named_by_their_own_size(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast_run, "_PATIENCE_S", 0.0)
    found = make_forecast(prepared(settings(data, "datasets.batch_size=4")))
    size = "x".join(map(str, found.dry_vox))
    assert f"extrapolated from smaller dry steps of 1 x {size} voxels" in found.lines()[0]
    assert found.dry_vox != SHAPE


def test_what_does_not_fit_comes_with_a_way_out(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepared(settings(data, "models.channels=[16,32]", "datasets.batch_size=4"))
    full = make_forecast(setup)
    assert full.fits
    assert not full.remedies
    # As if the machine had a little more than the process has by now.
    for module in (forecast_run, auto_sizes):
        monkeypatch.setattr(module, "free_host_bytes", lambda own: int(own * 1.01))
    tight = make_forecast(setup)
    assert not tight.fits
    assert any("auto" in override for override, _ in tight.remedies)
    assert "more memory than there is" in " ".join(tight.lines())
    with pytest.raises(ConfigError, match="no size fits"):
        choose_sizes(with_datasets(setup, patch_vox="auto", batch_size="auto"))


def test_auto_takes_whole_volumes_by_twos_where_they_fit_and_a_resume_keeps_them(
    data: Path, outputs: Path
) -> None:
    given = settings(
        data,
        "datasets.patch_vox=auto",
        "datasets.batch_size=auto",
        f"datasets.output_path={outputs}",
    )
    folder = run_experiment(given).folder
    kept = json.loads((folder / "forecast.json").read_text())
    assert kept["patch_vox"] == list(SHAPE)
    assert kept["batch_size"] == 2
    kept["patch_vox"] = [8, 8, 8]
    (folder / "forecast.json").write_text(json.dumps(kept))
    longer = given.model_copy(
        update={
            "resume": str(folder),
            "lightning": given.lightning.model_copy(update={"max_epochs": 2}),
        }
    )
    run_experiment(longer)
    assert json.loads((folder / "forecast.json").read_text())["patch_vox"] == [8, 8, 8]


def test_auto_shrinks_the_longest_axis_until_it_fits(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(data, "datasets.target_spacing_mm=[0.2,0.2,0.2]", "datasets.patch_vox=auto")
    cost = StepCost(0, 1.0, 1e-9, on_device=False)
    monkeypatch.setattr(auto_sizes, "measure_step_cost", lambda setup, volumes: cost)
    monkeypatch.setattr(auto_sizes, "cache_bytes", lambda setup: 0.0)
    monkeypatch.setattr(auto_sizes, "free_host_bytes", lambda own: int(2 * 64**3 / 0.85) + 100)
    chosen = choose_sizes(prepared(given)).settings.datasets
    assert chosen.batch_size == 2
    assert isinstance(chosen.patch_vox, list)
    voxels = chosen.patch_vox[0] * chosen.patch_vox[1] * chosen.patch_vox[2]
    assert 0.7 * 64**3 < voxels <= 64**3
    assert max(chosen.patch_vox) - min(chosen.patch_vox) <= 16
