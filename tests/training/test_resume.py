"""A run that is killed and resumed ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.experiment.run_result import RunResult
from hsf_finetune.training.metrics_file import read_metrics
from hsf_finetune.training.module import MONITOR
from tests.conftest import CONF, NETWORK
from tests.training.killing import run_until_killed

PRESETS: dict[str, tuple[list[str], list[int]]] = {
    "hsf": (["finetuning.depth=1", "finetuning.unfreeze_frequency=2"], [0, 1, 2]),
    "linear": (["models.lr=1e-6", "finetuning.gradual_patience=2"], [1]),
    "gradual": (
        ["lightning.max_epochs=12", "models.lr=1e-5", "finetuning.gradual_patience=1"],
        [1, 2, 5],
    ),
    "full": (
        [
            "lightning.max_epochs=4",
            "models.lr=1e-6",
            "finetuning.lr_schedule=plateau",
            "finetuning.lr_drop_epochs=1",
        ],
        [1, 3],
    ),
    "progressive": (
        [
            "lightning.max_epochs=3",
            "finetuning.unfreeze_backbone_at_epoch=1",
            "finetuning.lr_schedule=poly",
            "finetuning.warmup_epochs=1",
            "augmentation.mixup_p=0.7",
            "augmentation.cutmix_p=0.7",
            "models.label_smoothing=0.1",
        ],
        [1],
    ),
    "lpft": (["lightning.max_epochs=4", "finetuning.linear_probe_epochs=2"], [2, 3]),
    "encoder_first": (["lightning.max_epochs=2"], [1]),
    "staged": (
        [
            "finetuning.stages=[{epochs: 2, freeze_level: 2, augmentation: none},"
            "{epochs: 4, blocks: [encoder1, norms], patience_epochs: 1, head_boost: 3.0},"
            "{epochs: 2, freeze_level: 0, augmentation_strength: 0.5, start_from: last}]",
            "finetuning.regularise=l2sp",
        ],
        [2, 4],
    ),
}
"""Preset -> how it is made short, and the epochs in which it is killed."""


def settings_of(data: Path, run_dir: Path, preset: str, *more: str) -> Settings:
    """Three steps an epoch, with everything random switched on."""
    return compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            "datasets.k_sample=6",
            "datasets.batch_size=2",
            f"datasets.output_path={run_dir.parent}",
            f"run_dir={run_dir}",
            f"finetuning={preset}",
            "finetuning.pretrained=none",
            "augmentation.affine_p=0.9",
            "models.dropout=0.2",
            "models.lr=1e-2",
            "logger=csv",
            "report=off",
            "quality=off",
            "lightning.forecast=false",
            "lightning.accelerator=cpu",
            "lightning.threads=1",
            *NETWORK,
            *PRESETS[preset][0],
            *more,
        ],
        CONF,
    )


Uninterrupted = Callable[[str], RunResult]


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """Each preset, run once."""

    @functools.cache
    def of(preset: str) -> RunResult:
        folder = tmp_path_factory.mktemp(preset) / "run"
        return run_experiment(settings_of(data, folder, preset))

    return of


def last(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


@pytest.mark.parametrize(
    ("preset", "epoch", "resume"),
    [
        *((preset, epoch, "path") for preset, (_, epochs) in PRESETS.items() for epoch in epochs),
        ("hsf", 3, "auto"),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    data: Path, tmp_path: Path, uninterrupted: Uninterrupted, preset: str, epoch: int, resume: str
) -> None:
    whole = last(uninterrupted(preset).folder)
    run_dir = tmp_path / "run"
    run_until_killed(settings_of(data, run_dir, preset), epoch)
    result = run_experiment(
        settings_of(data, run_dir, preset, f"resume={run_dir if resume == 'path' else 'auto'}")
    )
    assert result.folder == run_dir.resolve()
    resumed = last(run_dir)
    for part in ("state_dict", "current_model_state"):
        assert resumed[part].keys() == whole[part].keys()
        for name, tensor in whole[part].items():
            assert torch.equal(resumed[part][name], tensor), f"{part}: {name}"
    assert resumed["epoch"] == whole["epoch"]
    assert_same(resumed["hsf_finetune"], whole["hsf_finetune"])
    assert_same(resumed["optimizer_states"], whole["optimizer_states"])
    assert_same(resumed["callbacks"]["Stages"], whole["callbacks"]["Stages"])
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    epochs = range(whole["epoch"] + 1)
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, epochs)]
    assert {p.name for p in (run_dir / "checkpoints").iterdir()} <= {
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
        "start.ckpt",
    }


def test_loader_processes_draw_for_the_epoch_that_is_resumed(data: Path, tmp_path: Path) -> None:
    more = ["lightning.max_epochs=3", "datasets.num_workers=1"]
    whole = run_experiment(settings_of(data, tmp_path / "whole" / "run", "full", *more)).folder
    run_dir = tmp_path / "killed" / "run"
    run_until_killed(settings_of(data, run_dir, "full", *more), 2)
    run_experiment(settings_of(data, run_dir, "full", *more, f"resume={run_dir}"))
    assert_same(last(run_dir)["state_dict"], last(whole)["state_dict"])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_epochs_lie_in_every_stage(uninterrupted: Uninterrupted, preset: str) -> None:
    """What the test above kills is inside every stage, plateaus included."""
    checkpoint = last(uninterrupted(preset).folder)
    history = checkpoint["callbacks"]["Stages"]["history"]
    ended = history["ended"]
    _, epochs = PRESETS[preset]
    if preset in ("linear", "gradual"):
        assert ended, "no plateau came"
    if preset == "full":
        assert history["drops"], "no rate fell"
    assert max(epochs) <= checkpoint["epoch"]


def test_epochs_without_validation_have_no_figures_of_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["lightning.max_epochs=5", "lightning.check_val_every_n_epoch=2", "calibration=off"]
    folder = tmp_path / "whole" / "run"
    run_experiment(settings_of(data, folder, "full", *more))
    lines = [line for line in capsys.readouterr().out.splitlines() if "/4  loss" in line]
    assert ["validation Dice" in line for line in lines] == [False, True, False, True, False]
    whole = read_metrics(folder / "metrics.csv")
    figures = [name for name in whole[0] if name in (MONITOR, "val/loss") or "val/dice/" in name]
    assert len(figures) > 2
    for epoch, row in enumerate(whole):
        assert {bool(row[name]) for name in figures} == {epoch % 2 == 1}
    run_dir = tmp_path / "killed" / "run"
    run_until_killed(settings_of(data, run_dir, "full", *more), 2)
    run_experiment(settings_of(data, run_dir, "full", *more, f"resume={run_dir}"))
    assert_same(*map(_without_times, (read_metrics(run_dir / "metrics.csv"), whole)))


def test_a_resumed_run_keeps_what_it_knows_of_the_weights_it_started_from(
    data: Path, tmp_path: Path, source_run: Path
) -> None:
    content = torch.load(source_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hsf_finetune"]["origin"] = {"name": "theirs", "format": "nnU-Net", "licence": "MIT"}
    torch.save(content, tmp_path / "source.ckpt")
    more = ["lightning.max_epochs=2", f"finetuning.pretrained={tmp_path / 'source.ckpt'}"]
    whole = tmp_path / "whole" / "run"
    run_experiment(settings_of(data, whole, "full", *more))
    run_dir = tmp_path / "killed" / "run"
    run_until_killed(settings_of(data, run_dir, "full", *more), 1)
    run_experiment(settings_of(data, run_dir, "full", *more, f"resume={run_dir}"))
    assert last(whole)["callbacks"]["DivergenceGuard"]["untouched"] is not None
    for part in ("hsf_finetune", "DivergenceGuard"):
        one, other = ({**last(f), **last(f)["callbacks"]}[part] for f in (run_dir, whole))
        assert_same(one, other)
    cards = (
        torch.load(f / "checkpoints" / "best.ckpt", weights_only=True)["hsf_finetune"]
        for f in (run_dir, whole)
    )
    assert_same(*cards)


def _without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        {k: v for k, v in row.items() if k != "seconds" and not k.startswith("cost/")}
        for row in rows
    ]


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


def test_killed_after_the_last_epoch_only_the_scores_are_made(
    data: Path, uninterrupted: Uninterrupted
) -> None:
    first = uninterrupted("gradual")
    (first.folder / "result.json").unlink()
    before = last(first.folder)
    second = run_experiment(settings_of(data, first.folder, "gradual", f"resume={first.folder}"))
    assert second.after == first.after
    assert_same(last(first.folder)["state_dict"], before["state_dict"])
    assert (first.folder / "result.json").exists()
