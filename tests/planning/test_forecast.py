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
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.experiment.run import execute, preview_plan
from hsf_finetune.inference.predictor import ModelCard
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.planning import forecast as forecasting
from hsf_finetune.planning import memory
from hsf_finetune.planning.budget import planned
from hsf_finetune.planning.dry_run import DryRun, Load
from hsf_finetune.planning.forecast import forecast
from hsf_finetune.planning.memory import decide_auto
from hsf_finetune.planning.start import build_network
from hsf_finetune.planning.workload import workload
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF, FAST, SHAPE


def settings(data: Path, *more: str) -> Settings:
    return compose(
        "train",
        ["datasets=tiny", f"datasets.main_path={data}", *FAST, "lightning.max_epochs=1", *more],
        CONF,
    )


def dry_run(given: Settings) -> tuple[DryRun, Split]:
    cohort = discover(given.datasets, given.models)
    anatomy = build_network(given, cohort)
    card = ModelCard(
        cohort.classes.names,
        cohort.label_values,
        given.models,
        cohort.channels,
        None,
        padded_shape(given.datasets.window_vox, anatomy.divisor),
    )
    split = split_cases(cohort.cases, given.datasets, given.seed)
    return DryRun(given, cohort, anatomy, planned(given, anatomy), card), split


def test_it_leaves_no_trace(data: Path) -> None:
    dry, _ = dry_run(settings(data))
    before = {n: t.clone() for n, t in dry.anatomy.network.state_dict().items()}
    random = torch.get_rng_state()
    cost = dry.measure(0, Load(2, (8, 8, 8), (8, 8, 8)))
    assert cost.step_s > 0
    assert cost.validation_s > 0
    assert cost.host_bytes > 50e6
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in dry.anatomy.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in dry.anatomy.network.parameters())


def test_larger_batches_take_longer(data: Path) -> None:
    dry, _ = dry_run(settings(data, "models.channels=[8,16]"))
    # Of this thread alone: other programs do not lengthen it.
    dry = replace(dry, clock=time.thread_time)
    small, large = (dry.measure(0, Load(n, (32, 32, 32), (8, 8, 8))).step_s for n in (1, 8))
    assert large > 2 * small


def test_the_workload_follows_from_headers(data: Path) -> None:
    given = settings(data, "datasets.k_sample=7", "datasets.train_ratio=0.6")
    _, split = dry_run(given)
    whole = workload(split, given.datasets, (128, 128, 128), 2, (2, 2, 2))
    assert whole.typical_vox == whole.largest_vox == whole.volume_vox == SHAPE
    assert whole.batches == 4
    assert whole.volumes == len(split.validation) == 2
    cut = workload(split, given.datasets, (8, 100, 8), 1, (4, 4, 4))
    assert cut.typical_vox == (8, 24, 8)
    finer = given.datasets.model_copy(
        update={"target_spacing_mm": [0.4, 0.5, 0.6], "window_vox": [16, 24, 16]}
    )
    windows = workload(split, finer, (128, 128, 128), 1, (2, 2, 2))
    assert windows.typical_vox == (32, 48, 32)
    # Three half-overlapping windows along each axis.
    assert windows.volumes == 2 * 27


def test_it_is_printed_and_kept(
    data: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(data, f"datasets.output_path={outputs}", "lightning.forecast=true")
    folder = execute(given).folder
    said = capsys.readouterr().out
    assert "forecast, from dry steps of 2 x" in said
    assert "an epoch takes about" in said
    kept = json.loads((folder / "forecast.json").read_text())
    assert kept["stages"][0]["seconds"] > 0
    assert kept["host_bytes"] > 1e8
    preview_plan(given, forecast=True)
    assert "forecast, from dry steps of 2 x" in capsys.readouterr().out


def test_what_does_not_fit_comes_with_a_way_out(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry, split = dry_run(settings(data, "models.channels=[16,32]", "datasets.batch_size=4"))
    full = forecast(dry, split)
    assert full.fits
    assert not full.remedies
    # As if the machine had a little more than the process has by now.
    for module in (forecasting, memory):
        monkeypatch.setattr(module, "host_free", lambda own: int(own * 1.01))
    tight = forecast(dry, split)
    assert not tight.fits
    assert any("auto" in override for override, _ in tight.remedies)
    assert "more memory than there is" in " ".join(tight.lines())
    with pytest.raises(ConfigError, match="no size fits"):
        decide_auto(replace(dry, settings=with_auto(dry.settings)), split)


def with_auto(given: Settings) -> Settings:
    sizes = {"patch_vox": "auto", "batch_size": "auto"}
    return given.model_copy(update={"datasets": given.datasets.model_copy(update=sizes)})


def test_auto_takes_whole_volumes_by_twos_where_they_fit_and_a_resume_keeps_them(
    data: Path, outputs: Path
) -> None:
    given = settings(
        data,
        "datasets.patch_vox=auto",
        "datasets.batch_size=auto",
        f"datasets.output_path={outputs}",
    )
    folder = execute(given).folder
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
    execute(longer)
    assert json.loads((folder / "forecast.json").read_text())["patch_vox"] == [8, 8, 8]


def test_auto_shrinks_the_longest_axis_until_it_fits(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(data, "datasets.target_spacing_mm=[0.2,0.2,0.2]", "datasets.patch_vox=auto")
    dry, split = dry_run(given)
    appetite = memory.Appetite(0, 1.0, 1e-9, on_device=False)
    monkeypatch.setattr(memory, "measure_appetite", lambda dry, work: appetite)
    monkeypatch.setattr(memory, "cache_bytes", lambda cohort, settings: 0.0)
    monkeypatch.setattr(memory, "host_free", lambda own: int(2 * 64**3 / 0.85) + 100)
    chosen = decide_auto(dry, split).datasets
    assert chosen.batch_size == 2
    assert isinstance(chosen.patch_vox, list)
    voxels = chosen.patch_vox[0] * chosen.patch_vox[1] * chosen.patch_vox[2]
    assert 0.7 * 64**3 < voxels <= 64**3
    assert max(chosen.patch_vox) - min(chosen.patch_vox) <= 16
