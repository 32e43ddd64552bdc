"""What finetune.py and train.py do with their command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hsf_finetune.cli.hydra_launcher import launch
from hsf_finetune.cli.main import launch_or_explain, main
from hsf_finetune.config.settings import Settings
from hsf_finetune.system.errors import ConfigError, DataError, SeveralErrors
from tests.conftest import CONF

TINY = ("--config-dir", str(CONF), "datasets=tiny")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_task_gets_the_settings_and_the_process_its_arguments_back() -> None:
    before, seen = [*sys.argv], []
    launch("finetune", seen.append, ["seed=3", *TINY, "models.lr=0.5"])
    assert [(s.seed, s.models.lr, list(s.datasets.datasets)) for s in seen] == [(3, 0.5, ["tiny"])]
    assert sys.argv == before


def test_a_sweep_runs_every_combination_wherever_its_flag_stands() -> None:
    seen: list[Settings] = []
    launch("finetune", seen.append, [*TINY, "-m", "seed=0,1", "models=unet,dynunet"])
    assert [(s.seed, s.models.name) for s in seen] == [
        (0, "unet"),
        (0, "dynunet"),
        (1, "unet"),
        (1, "dynunet"),
    ]


@pytest.mark.parametrize("flags", [["-m", "seed=0,1"], ["hydra.verbose=false"]])
def test_hydra_gets_keys_that_no_file_has(flags: list[str]) -> None:
    seen: list[Settings] = []
    given = ["datasets.datasets.tiny.weight=2", "finetuning.head=copy", "weights=hsf"]
    launch("finetune", seen.append, [*flags, *TINY, *given])
    for settings in seen:
        assert settings.datasets.datasets["tiny"].weight == 2
        assert (settings.weights.head, settings.weights.pretrained) == ("copy", "hsf")
        assert settings.weights.named is not None
    assert [settings.seed for settings in seen] == ([0, 1] if "-m" in flags else [0])


def test_a_wrong_value_in_a_sweep_is_found_before_the_first_run(tmp_path: Path) -> None:
    seen: list[Settings] = []
    with pytest.raises(ConfigError, match="seed: should be a valid integer"):
        launch("finetune", seen.append, ["-m", "seed=0,1,x"])
    assert not seen
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_does_not_stop_the_sweep() -> None:
    seen: list[int] = []

    def task(settings: Settings) -> None:
        seen.append(settings.seed)
        if settings.seed == 1:
            raise DataError("no such file", file="here")

    with pytest.raises(SeveralErrors, match=r"1 run\(s\) failed \(seed=1\):\nno such file"):
        launch("finetune", task, ["seed=1,2", "--multirun"])
    assert seen == [1, 2]


def test_what_the_task_raises_comes_back_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    def task(settings: Settings) -> None:
        raise error

    for error in (DataError("mine"), ZeroDivisionError("a defect"), OSError(28, "full")):
        with pytest.raises(type(error)) as caught:
            launch("finetune", task, [])
        assert caught.value is error
    assert capfd.readouterr() == ("", ""), "Hydra prints no traceback of its own"


@pytest.mark.parametrize("config", ["finetune", "train"])
def test_help_says_what_there_is(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hsf-finetune"])
    launch_or_explain(config, ["--help", *TINY, "models=dynunet"])
    text = capsys.readouterr().out
    assert text.startswith({"finetune": "Fine-tune", "train": "Train"}[config])
    assert f"hsf-finetune {config} [group=option]" in text
    assert "monai_unet, nnunet, pretrained, primus, resnet_unet" in text
    assert "tiny, tiny_hdf5" in text, "options of one's own folder"
    assert "residual: false" in text, "the chosen network's settings"
    assert "hsf, medicalnet_resnet10" in text
    assert "defaults:" not in text


def test_the_configuration_can_be_printed_without_a_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Settings] = []
    launch("finetune", seen.append, ["--cfg", "job", *TINY, "seed=7"])
    assert not seen
    assert "seed: 7" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--cfg", "job"], ["-m"]])
def test_a_mistake_is_one_message_and_exit_code_2(
    flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["finetune", *flags, "models.learning_rate=1"])
    assert caught.value.code == 2
    text = capfd.readouterr().err
    assert text.startswith("error: there is no setting 'models.learning_rate'")
    assert "Traceback" not in text


def test_an_unknown_flag_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--bogus"])
    assert caught.value.code == 2
    assert "--bogus" in capfd.readouterr().err
