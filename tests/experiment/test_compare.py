"""Presets side by side on the tiny cohort, and runs that were made before."""

from __future__ import annotations

import csv
import json
import shutil
from html import escape as html_escape
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread

from hsf_finetune.cli.hydra_launcher import launch
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.compare_runs import Comparison, compare_runs, strategy_name
from hsf_finetune.evaluation.score_tables import MEAN, read_scores, summarise
from hsf_finetune.experiment.compare import compare_presets
from hsf_finetune.experiment.presets import PRESETS
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.system.errors import ConfigError, UserError, WeightsError
from tests.conftest import CONF, FAST

PRESETS_HERE = ("hsf", "lpft", "from_scratch")
RUNS = ["pretrained", *PRESETS_HERE]


def overrides(data: Path, outputs: Path, source: Path, *more: str) -> list[str]:
    return [
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        f"finetuning.pretrained={source}",
        "finetuning.derive_from={anterior: blob, posterior: blob}",
        "finetuning.unfreeze_frequency=1",
        "models.lr=1e-2",
        # so that two epochs end differently in each regime
        "finetuning.lr_factors={head: 1}",
        *FAST,
        *more,
    ]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def compared(data: Path, outputs: Path, source_run: Path) -> Comparison:
    given = overrides(data, outputs, source_run)
    return compare_presets(given, presets=PRESETS_HERE, config_dir=CONF, reference="hsf")


def test_report_says_which_is_better(compared: Comparison) -> None:
    html = (compared.folder / "report.html").read_text(encoding="utf-8")
    result = json.loads((compared.folder / "compare.json").read_text())["result"]
    assert f"<p>{html_escape(result)}</p>" in html
    assert all(f">{name}</th>" in html for name in RUNS)
    assert not list(compared.folder.glob("*/report.html"))


def table(comparison: Comparison) -> dict[str, dict[str, str]]:
    with (comparison.folder / "compare.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    }


def test_every_shipped_preset_is_compared() -> None:
    shipped = {path.stem for path in (CONF.parents[1] / "conf" / "finetuning").glob("*.yaml")}
    # The default is full under another name; self-training needs scans without labels.
    assert set(PRESETS) == shipped - {"default", "selftrain"}


def test_table_and_picture_are_written(compared: Comparison) -> None:
    assert [*table(compared)] == RUNS
    written = json.loads((compared.folder / "compare.json").read_text())
    assert [run["run"] for run in written["runs"]] == RUNS
    assert (written["reference"], written["side"]) == ("hsf", "validation")
    assert imread(compared.folder / "compare.png").std() > 0.05


def test_its_figures_are_those_of_the_runs(compared: Comparison) -> None:
    for name, row in table(compared).items():
        trained = name != "pretrained"
        file = f"{name}/validation_scores.csv" if trained else "lpft/pretrained_scores.csv"
        for summary in summarise(read_scores(compared.folder / file)):
            column = "dice" if summary.class_name == MEAN else f"dice_{summary.class_name}"
            assert float(row[column]) == pytest.approx(summary.dice.mean)
    default, lpft = (float(table(compared)[name]["dice"]) for name in ("hsf", "lpft"))
    assert float(table(compared)["lpft"]["less_hsf"]) == pytest.approx(lpft - default)
    assert table(compared)["hsf"]["less_hsf"] == ""


def test_split_seed_and_length_are_the_same_in_all(compared: Comparison) -> None:
    splits = {(compared.folder / n / "splits.json").read_text() for n in PRESETS_HERE}
    configs = [
        yaml.safe_load((compared.folder / n / "config.yaml").read_text()) for n in PRESETS_HERE
    ]
    assert len(splits) == 1
    assert {c["seed"] for c in configs} == {0}
    # The default preset unfreezes one block, after an epoch.
    assert {c["lightning"]["max_epochs"] for c in configs} == {2}
    schedules = [
        json.loads((compared.folder / n / "schedule.json").read_text()) for n in PRESETS_HERE
    ]
    assert {s["max_epochs"] for s in schedules} == {2}


def test_the_cost_is_that_of_the_epochs_that_were_trained(compared: Comparison) -> None:
    for name in PRESETS_HERE:
        row = table(compared)[name]
        with (compared.folder / name / "metrics.csv").open(newline="") as file:
            epochs = list(csv.DictReader(file))
        assert int(row["epochs"]) == len(epochs)
        assert float(row["cpu_seconds"]) == pytest.approx(
            sum(float(e["cost/train_cpu_s"]) for e in epochs)
        )
        assert 0 < float(row["cpu_seconds"]) < 60
        assert row["gpu_seconds"] == ""
        cost = json.loads((compared.folder / name / "result.json").read_text())["training"]
        assert cost["cpu_seconds"] == float(row["cpu_seconds"])
    default, scratch = (table(compared)[name] for name in ("hsf", "from_scratch"))
    assert 0 < float(default["trainable_share_mean"]) < float(default["trainable_share_peak"]) < 1
    assert float(scratch["trainable_share_mean"]) == 1
    assert table(compared)["pretrained"]["epochs"] == ""


def test_from_scratch_is_without_the_weights_that_the_overrides_name(compared: Comparison) -> None:
    assert not (compared.folder / "from_scratch" / "transfer.json").exists()
    assert (compared.folder / "lpft" / "transfer.json").exists()


def test_only_missing_runs_are_made_and_one_that_fails_does_not_stop_the_others(
    compared: Comparison, data: Path, outputs: Path, source_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / compared.folder.name
    shutil.copytree(compared.folder, copy)
    (copy / "full").mkdir()
    (copy / "full" / "notes.txt").write_text("mine")
    before = contents(copy)
    given = overrides(data, outputs, source_run)
    with pytest.raises(UserError, match=r"1 of 3 runs failed:\nfinetuning=full: .*in use"):
        compare_presets(given, presets=["full", "linear", "hsf"], config_dir=CONF, output=copy)
    after = contents(copy)
    assert {path: after[path] for path in before} == before
    with (copy / "compare.csv").open(newline="") as file:
        rows = [row["run"] for row in csv.DictReader(file)]
    assert rows == ["pretrained", "linear", "hsf", "from_scratch", "lpft"]


def test_an_interrupted_run_goes_on(
    compared: Comparison, data: Path, outputs: Path, source_run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(compared.folder, tmp_path / "copy")
    (copy / "lpft" / "result.json").unlink()
    epochs = (copy / "lpft" / "metrics.csv").read_text()
    given = overrides(data, outputs, source_run)
    again = compare_presets(given, presets=["lpft"], config_dir=CONF, output=copy)
    assert (copy / "lpft" / "metrics.csv").read_text() == epochs, "its epochs were all there"
    assert table(again)["lpft"]["dice"] == table(compared)["lpft"]["dice"]


def test_the_same_settings_find_their_folder_and_others_do_not(
    compared: Comparison, data: Path, outputs: Path, source_run: Path
) -> None:
    before = contents(compared.folder)
    given = overrides(data, outputs, source_run)
    again = compare_presets(given, presets=["lpft"], config_dir=CONF)
    assert again.folder == compared.folder
    assert set(table(again)) == set(RUNS), "the table has not lost the others"
    given = overrides(data, outputs, source_run, "lightning.max_epochs=1")
    other = compare_presets(given, presets=["hsf"], config_dir=CONF)
    assert other.folder != compared.folder
    assert contents(compared.folder) == before
    with pytest.raises(ConfigError, match=r"lightning\.max_epochs: 2 in that run, 1 now"):
        compare_presets(given, presets=["hsf"], config_dir=CONF, output=compared.folder)


def test_runs_that_are_there_give_the_same_table(compared: Comparison, tmp_path: Path) -> None:
    folders = [compared.folder / name for name in PRESETS_HERE]
    again = compare_runs([*folders, folders[0]], output=tmp_path / "out")
    assert table(again) == table(compared), "a run given twice counts once"


@pytest.fixture(scope="module")
def other_seed(
    data: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, float]]:
    """A run with another split, first of one epoch, then of two; and its cost after one."""
    folder = tmp_path_factory.mktemp("other") / "run"
    given = overrides(data, folder.parent, source_run, "finetuning=full", "seed=1")
    given.remove("finetuning.unfreeze_frequency=1")
    given.append(f"run_dir={folder}")
    run_experiment(compose("finetune", [*given, "lightning.max_epochs=1"], CONF))
    short = json.loads((folder / "result.json").read_text())["training"]
    run_experiment(
        compose("finetune", [*given, "lightning.max_epochs=2", f"resume={folder}"], CONF)
    )
    return folder, short


def test_a_resumed_run_costs_all_of_its_epochs(other_seed: tuple[Path, dict[str, float]]) -> None:
    folder, short = other_seed
    cost = json.loads((folder / "result.json").read_text())["training"]
    assert (short["epochs"], cost["epochs"]) == (1, 2)
    assert (short["steps"], cost["steps"]) == (2, 4)
    assert cost["cpu_seconds"] > short["cpu_seconds"] > 0
    assert cost["mean_share"] == 1


def test_runs_with_another_split_or_other_classes_are_refused(
    compared: Comparison, source_run: Path, other_seed: tuple[Path, object], tmp_path: Path
) -> None:
    default, (other, _) = compared.folder / "hsf", other_seed
    with pytest.raises(
        ConfigError, match=r"different splits.*\n.*\n.*sub-\d\d.* is among the train"
    ):
        compare_runs([default, other])
    with pytest.raises(ConfigError, match=r"different classes(.*\n)+.*anterior, posterior\n.*blob"):
        compare_runs([default, source_run])
    unfinished = shutil.copytree(default, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(ConfigError, match="has not ended"):
        compare_runs([default, unfinished])
    with pytest.raises(ConfigError, match="not the folder of a run"):
        compare_runs([default, tmp_path])


@pytest.mark.parametrize(
    ("more", "presets", "said"),
    [
        (["finetuning=full"], ["hsf"], "--presets"),
        ([], ["hsf", "hsf"], "each once"),
        ([], ["hsf", "ful"], "full"),
        (["lightning.max_epochs=1"], ["full", "lpft"], "2 phases"),
        (["lightning.devices=2"], ["full"], "one device"),
        (["finetuning.pretrained=nowhere.ckpt"], ["full"], "nowhere"),
    ],
)
def test_what_cannot_work_is_said_before_a_run_starts(
    data: Path, tmp_path: Path, source_run: Path, more: list[str], presets: list[str], said: str
) -> None:
    given = overrides(data, tmp_path, source_run, *more)
    with pytest.raises((ConfigError, WeightsError), match=said):
        compare_presets(given, presets=presets, config_dir=CONF)
    assert not list(tmp_path.iterdir())


def test_test_cases_are_compared_where_there_are_any(
    data: Path, tmp_path: Path, source_run: Path
) -> None:
    sides = "datasets.train_val_test_idx=[[0,1],[2,3],[4]]"
    given = overrides(data, tmp_path, source_run, sides, "lightning.max_epochs=1")
    compared = compare_presets(given, presets=["linear"], config_dir=CONF)
    folder = compared.folder / "linear"
    assert (compared.side, compared.figures[0].dice.n) == ("test", 1)
    for name, file in (("pretrained", "pretrained_test_scores"), ("linear", "test_scores")):
        mean = summarise(read_scores(folder / f"{file}.csv"))[-1].dice.mean
        assert float(table(compared)[name]["dice"]) == pytest.approx(mean)
    validated = compare_runs([folder], output=tmp_path / "out", side="validation")
    assert validated.figures[0].dice.n == 2


def test_the_sweep_has_every_preset_once_and_the_names_of_compare(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Settings] = []
    launch(
        "finetune",
        seen.append,
        ["-m", "experiment=compare_strategies", "datasets=tiny", "--config-dir", str(CONF), *FAST],
    )
    assert [strategy_name(settings) for settings in seen] == [*PRESETS[:-1]]
    assert len({settings.name for settings in seen}) == len(seen)
    assert {settings.lightning.max_epochs for settings in seen} == {50}
    assert sum(stage.epochs for stage in seen[5].finetuning.stages) == 50, "staged is not cut"
