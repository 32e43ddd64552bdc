"""Errors that a user can mend become one message and an exit code; defects stay tracebacks."""

from __future__ import annotations

import errno
import getpass
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from hsf_finetune import __version__
from hsf_finetune.cli.evaluate_command import parse_names
from hsf_finetune.cli.main import COMMANDS, HYDRA_COMMANDS, explain, main
from hsf_finetune.system.errors import ConfigError, UserError
from hsf_finetune.system.run_folder import read_environment


def raising(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


def interrupted_elsewhere() -> int:
    try:
        raise KeyError
    except KeyError:
        raise KeyboardInterrupt from None


class OutOfMemoryError(RuntimeError):
    """What PyTorch's is called."""


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (
            raising(UserError("no", file="x", fix="y")),
            2,
            "error: no\n  file:     x\n  fix:      y\n",
        ),
        (
            raising(OSError(errno.ENOSPC, "No space left on device", "a.ckpt")),
            2,
            "the disk is full",
        ),
        (raising(OSError(errno.EDQUOT, "Quota exceeded")), 2, "Quota exceeded"),
        (raising(OutOfMemoryError("CUDA out of memory")), 2, "datasets.batch_size=1"),
        (raising(RuntimeError("third_party/gloo/pair.cc: closed")), 2, "resume=auto continues"),
        (raising(ModuleNotFoundError("no", name="lightning")), 2, "without --no-deps"),
        (raising(KeyboardInterrupt()), 130, "resume=auto"),
        (interrupted_elsewhere, 130, "resume=auto"),
    ],
)
def test_what_is_said_and_returned(
    action: Callable[[], int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(action) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ValueError("a defect"), OSError(errno.EIO, "bad disk"), SystemExit(3)]
)
def test_defects_are_not_hidden(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        explain(raising(error))
    assert caught.value is error


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    program = "from hsf_finetune.cli.main import explain, sys\nsys.exit(explain(lambda: print('x' * 99_999) or 0))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_user_without_a_name_has_one_for_what_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with pytest.raises(KeyError):
        getpass.getuser()
    assert explain(lambda: len(getpass.getuser())) == len("user")


@pytest.mark.parametrize("arguments", [[], ["predict"], ["predict", "run", "scan"], ["nonsense"]])
def test_a_command_that_lacks_something_shows_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: hsf-finetune" in capsys.readouterr().err


def test_flags_that_no_command_knows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["predict", "run", "scan", "-o", "x", "--fast"], ["phantom", "x", "y"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


def test_a_version_with_unreleased_changes_is_not_that_of_a_release() -> None:
    root = Path(__file__).parents[2]
    released = re.findall(r"^## \[(\d.*?)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert "## [Unreleased]" in (root / "CHANGELOG.md").read_text()
    assert Version(__version__).is_devrelease
    assert Version(__version__) > max(map(Version, released))
    cited = yaml.safe_load((root / "CITATION.cff").read_text())["version"]
    assert cited == released[0]
    assert read_environment()["packages"]["hsf-finetune"] == __version__


PREDICT = ["predict", "run", "scan", "-o", "x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*PREDICT, "--spacing", "1", "nan", "1"], "'nan' is not a number of mm, more than 0"),
        ([*PREDICT, "--spacing", "1", "1", "0"], "'0' is not a number of mm, more than 0"),
        ([*PREDICT, "--where-margin=-inf"], "'-inf' is not a number of mm, 0 or more"),
        ([*PREDICT, "--review", "-1"], "'-1' is not a whole number, 0 or more"),
        (["cache", "--prune", "nan"], "'nan' is not a number of days, 0 or more"),
        (["cache", "--prune", "-1"], "'-1' is not a number of days, 0 or more"),
        (["cache", "--prune", "inf"], "'inf' is not a number of days, 0 or more"),
        (["evaluate", "a", "b", "--tolerance-mm", "nan"], "'nan' is not a number of mm, 0 or"),
        (["check", "--jobs", "0"], "'0' is not a whole number, 1 or more"),
        (["check", "--pictures", "-1"], "'-1' is not a whole number, 0 or more"),
        (["report", "run", "--cases", "1.5"], "'1.5' is not a whole number, 0 or more"),
        (["next", "run", "scans", "-o", "x", "--k", "0"], "'0' is not a whole number, 1 or more"),
        (["learn", "run", "x", "-o", "y", "--steps", "0"], "'0' is not a whole number, 1 or more"),
        (["phantom", "x", "--seed", "-1"], "'-1' is not a whole number, 0 or more"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert f": {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["predct", "x"], "predict"), (["evaluate", "x", "--split", "valdation"], "validation")],
)
def test_a_misspelt_word_is_understood(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["segment"])
    assert "did you mean" not in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_plan_takes_overrides_on_both_sides_of_its_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", "models.lr=1", "--config-dir", ".", "models.lrr=1"])
    assert caught.value.code == 2
    assert "did you mean 'models.lr'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_quick_and_complete(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: hsf-finetune {arguments[0]} ".removesuffix("--help ") in text
    if arguments == ["--help"]:
        for name, about in {**HYDRA_COMMANDS, **COMMANDS}.items():
            assert f"{name:<10}{about}" in text


@pytest.mark.parametrize("arguments", ["--version", "--help", "predict --help", "check --help"])
def test_help_imports_no_heavy_library(arguments: str) -> None:
    program = (
        "import atexit, sys; from hsf_finetune.cli.main import main; atexit.register(lambda: "
        "print(*[m for m in ('numpy', 'torch', 'hydra', 'pydantic') if m in sys.modules])); "
        f"main({arguments.split()!r})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "", "a library was imported"


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "hsf_finetune", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, __version__)


def test_names_are_read_from_the_command_line() -> None:
    assert parse_names("1=DG, 2=CA2/3,") == {1: "DG", 2: "CA2/3"}
    assert parse_names("") == {}


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "my_rum", "scan.nii", "-o", "out"),
        ("evaluate", "my_rum"),
        ("evaluate", "my_rum", "labels"),
        ("report", "my_rum"),
        ("export", "my_rum", "--to", "onnx", "-o", "out"),
        ("convert", "my_rum", "-o", "Dataset123_A"),
        ("finetune", "resume=my_rum"),
    ],
)
def test_a_path_that_does_not_exist_is_said_to_be_none(
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_run").mkdir()
    with pytest.raises(SystemExit):
        main([*command])
    said = capsys.readouterr().err
    assert "no such file or folder" in said
    assert f"in {tmp_path}: my_run/" in said
    assert "did you mean my_run?" in said.replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("command", ["check", "convert"])
def test_the_path_of_a_yaml_and_a_folder_of_groups_exclude_each_other(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "datasets").mkdir()
    file = tmp_path / "datasets" / "mine.yaml"
    file.touch()
    output = ["-o", str(tmp_path / "Dataset123_A")] if command == "convert" else []
    with pytest.raises(SystemExit):
        main([command, "--config-dir", str(tmp_path), str(file), *output])
    said = capsys.readouterr().err
    assert "the path of a dataset YAML and --config-dir exclude each other" in said
    assert f"--config-dir {tmp_path} datasets=mine" in said


@pytest.mark.parametrize("text", ["DG=1", "1", "1=", "=DG", "1.5=DG", "-1=DG"])
def test_names_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="--labels cannot be read"):
        parse_names(text)


@pytest.mark.parametrize(
    ("text", "twice"), [("1=DG,2=DG", "name DG"), ("1=DG,1=CA", "value 1"), ("1=DG,01=DG", "value")]
)
def test_what_is_named_twice_is_said(text: str, twice: str) -> None:
    with pytest.raises(ConfigError, match=f"{twice}.* is there twice in --labels"):
        parse_names(text)


def test_compare_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("--presets", "--runs RUN", "--reference", "--on {validation,test}", "max_epochs"):
        assert word in text


@pytest.mark.parametrize("more", [["seed=1"], ["--presets", "full"], ["--config-dir", "."]])
def test_compare_takes_either_runs_or_what_makes_them(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", *more, "--runs", "a", "b"])
    assert caught.value.code == 2
    assert "leave out either --runs" in capsys.readouterr().err
