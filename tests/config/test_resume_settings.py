"""`resume=RUN` reads the settings of that run; only what is given differs from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import epochs_done
from tests.conftest import CONF, FAST

STORED = Path(__file__).parents[1] / "stored_runs" / "v0_1_0" / "finetuned"
OWN = ("datasets.datasets.tiny.weight=2", "finetuning.head=fresh", "seed=7", "models.lr=5e-3")


@pytest.fixture(scope="module")
def run(data: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, with settings of its own in every group."""
    folder = tmp_path_factory.mktemp("resume") / "run"
    main(["finetune", *command(data, folder, source_run)])
    return folder


def command(data: Path, folder: Path, source: Path) -> list[str]:
    given = ["datasets=tiny", f"datasets.main_path={data}", "lightning.max_epochs=1"]
    weights = [f"finetuning.pretrained={source}", f"run_dir={folder}"]
    return [*FAST, *given, *OWN, *weights, "--config-dir", str(CONF)]


def resumed(run: Path, *overrides: str, config: str = "finetune") -> Settings:
    return compose(config, [f"resume={run}", *overrides])


def differing(run: Path, settings: Settings) -> set[str]:
    before, now = read_settings_of(run).to_dict(), settings.to_dict()
    return {key for key in now if now[key] != before[key]}


def test_the_settings_are_those_of_the_run(run: Path) -> None:
    for path in (run, run / "checkpoints" / "last.ckpt"):
        assert differing(run, compose("finetune", [f"resume={path}"])) == {"resume"}
    assert differing(run, resumed(run, config="train")) == {"resume"}, "the task is the run's too"


@pytest.mark.parametrize(
    ("override", "group"),
    [
        ("lightning.max_epochs=60", "lightning"),
        ("++lightning.max_epochs=60", "lightning"),
        ("logger=tensorboard", "logger"),
        ("finetuning.lr_factors.encoder1=0.5", "finetuning"),
        ("datasets.datasets.tiny.labels.30=1", "datasets"),
        ("finetuning.head=copy", "weights"),
        ("weights.head=copy", "weights"),
        ("reset=[optimizer]", "reset"),
    ],
)
def test_what_is_given_differs(run: Path, override: str, group: str) -> None:
    assert differing(run, resumed(run, override)) == {"resume", group}


def test_groups_are_composed_as_ever(run: Path, data: Path, source_run: Path) -> None:
    """With the whole command line once more, nothing differs."""
    *overrides, _, config_dir = command(data, run, source_run)
    assert differing(run, compose("finetune", [*overrides, f"resume={run}"], config_dir)) == {
        "resume"
    }
    other = resumed(run, "models=dynunet", "models.channels=[4,8,8]")
    assert differing(run, other) == {"resume", "models"}
    assert other.models.name == "dynunet"
    again = resumed(run, "finetuning=hsf")
    assert differing(run, again) == {"resume", "finetuning"}
    assert again.weights == read_settings_of(run).weights


def test_a_reset_is_not_repeated(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(
        yaml.safe_dump(content | {"resume": "run", "reset": ["optimizer"]})
    )
    assert resumed(folder).reset == []


def test_mistakes_name_what_the_run_has(run: Path) -> None:
    for override, said in (
        ("models.chanels=[4]", "did you mean 'models.channels'?"),
        ("lightning.max_epochs=many", str(run / "config.yaml")),
    ):
        with pytest.raises(ConfigError) as caught:
            resumed(run, override)
        assert (said in str(caught.value)) == ("many" not in override)


def test_stages_of_a_run_can_be_changed(tmp_path: Path) -> None:
    staged = compose("finetune", ["finetuning=staged", f"run_dir={tmp_path}"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(staged.to_dict()))
    stage = resumed(tmp_path, "finetuning.stages.0.patience_epochs=3").finetuning.stages[0]
    assert (stage.epochs, stage.patience_epochs) == (5, 3)
    with pytest.raises(ConfigError, match=r"did you mean 'finetuning\.stages\.0\.lr'"):
        resumed(tmp_path, "finetuning.stages.0.lrr=1")


def test_what_is_no_run_is_left_to_the_run(tmp_path: Path) -> None:
    for value in ("auto", "null", str(tmp_path / "nowhere"), "'/a=b'"):
        assert compose("finetune", [f"resume={value}"]).seed == 0
    (tmp_path / "config.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match="cannot read the run's settings"):
        resumed(tmp_path)


def test_a_run_of_version_0_1_0(tmp_path: Path) -> None:
    folder = shutil.copytree(STORED, tmp_path / "old")
    text = (folder / "config.yaml").read_text().replace("DATA_FOLDER", str(tmp_path))
    (folder / "config.yaml").write_text(text.replace("OUTPUT_FOLDER", str(tmp_path)))
    assert differing(folder, resumed(folder)) == {"resume"}
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert resumed(folder).weights.pretrained == written["finetuning"]["pretrained"]


def test_named_weights_need_no_folder_of_ones_own(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    named = compose("finetune", ["weights=hsf"]).to_dict()["weights"]["named"]
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["weights"] |= {"pretrained": "ours", "named": named}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert differing(folder, resumed(folder)) == {"resume"}
    other = resumed(folder, "weights.pretrained=hsf").weights
    assert (other.pretrained, other.named) == (
        "hsf",
        compose("finetune", ["weights=hsf"]).weights.named,
    )
    assert resumed(folder, "weights=default").weights.named is None


def test_a_run_is_made_longer_by_two_words(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert epochs_done(folder) == 1
    main(["finetune", "resume=run", "lightning.max_epochs=2"])
    assert epochs_done(folder) == 2
    with pytest.raises(SystemExit):
        main(["finetune", "resume=run"])
    assert "the run has ended" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["finetune", "resume=run", "models.lr=1", "lightning.max_epochs=3"])
    assert "models.lr: 0.005" in capsys.readouterr().err
