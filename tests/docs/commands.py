"""Running the command lines of the documentation, made small."""

from __future__ import annotations

import contextlib
import functools
import glob
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from tests.conftest import FAST, NETWORK
from tests.docs.code_blocks import REPOSITORY

OURS = ("finetune", "train", "check", "advise", "plan", "compare")
"""Commands that take overrides."""
STARTS_FROM = {"finetuning.pretrained", "finetuning.external_weights_path", "resume"}
"""Overrides that say which weights a run starts from."""


def run_command(words: Sequence[str]) -> None:
    """Runs a command line as it stands, made small.

    Raises:
        AssertionError: it fails, or is of a kind that cannot be run here.
    """
    split = command_and_arguments(words)
    if split is not None:
        command, arguments = split
        run_ours(command, [*expanded(arguments), *what_makes_small(command, arguments)])
    elif words[0] == "make":
        subprocess.run(["make", "-n", "-C", str(REPOSITORY), *words[1:]], check=True)
    elif words[0].endswith("pre-commit"):
        assert (REPOSITORY / ".pre-commit-config.yaml").exists()
    else:
        pytest.fail(f"no test can run {words[0]}: write <!-- needs: ... --> before the block")


def command_and_arguments(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Our command in a command line and its arguments; None where it is another program."""
    if words[0] in ("srun", "torchrun"):
        words = ["python", *words[words.index("finetune.py") :]]
    if words[0] == "python" and words[1:] and words[1] in ("finetune.py", "train.py"):
        return words[1].removesuffix(".py"), [*words[2:]]
    return (words[1], [*words[2:]]) if words[0] == "hsf-finetune" else None


def run_ours(command: str, arguments: Sequence[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if command in ("finetune", "train"):
            script = REPOSITORY / f"{command}.py"
            patch.setattr(sys, "argv", [str(script), *arguments])
            code = exit_code(lambda: runpy.run_path(str(script), run_name="__main__"))
        else:
            code = exit_code(lambda: main([command, *arguments]))
    allowed = (0, 1) if "--strict" in arguments else (0,)
    assert code in allowed, f"hsf-finetune {command} {' '.join(arguments)}: exit code {code}"


def exit_code(action: Callable[[], object]) -> int:
    try:
        action()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def expanded(arguments: Sequence[str]) -> list[str]:
    """The arguments as a shell hands them on: with files in place of `*`."""
    return [
        path
        for word in arguments
        for path in (sorted(glob.glob(word)) if "*" in word and "=" not in word else []) or [word]
    ]


def what_makes_small(command: str, arguments: Sequence[str]) -> list[str]:
    """Overrides and flags that are appended, so that a command takes seconds.

    Groups that the command chooses itself stay as it chooses them.
    """
    if command == "init":
        return ["--force"]
    if command not in OURS or "--runs" in arguments or is_yaml(arguments):
        return []
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    own_network = given.get("models", "unet") != "unet"
    small = [one for one in FAST if not (own_network and one in NETWORK)]
    small = [one for one in small if one.partition("=")[0] not in given]
    if command in ("finetune", "train", "compare"):
        # A run that is resumed has one epoch behind it.
        small.append(f"lightning.max_epochs={2 if 'resume' in given else 1}")
    if command in ("finetune", "train") and not STARTS_FROM & given.keys():
        small.append("finetuning.pretrained=none")
    if given.get("datasets") in ("hdf5", "phantom"):
        # The cohort of the prepared folder is smaller than the one that would be made.
        small.append("datasets.generate=null")
    if command == "compare":
        small += ["--presets", "full,hsf"]
    if "experiment" in given and "-m" in arguments:
        small.append("finetuning=hsf")
    return small


def is_yaml(arguments: Sequence[str]) -> bool:
    return bool(arguments) and arguments[0].endswith(".yaml")


def compose_command(command: str, arguments: Sequence[str]) -> None:
    """Composes the overrides of a command that is not run."""
    words = [os.path.expandvars(word) for word in arguments]
    config_dir = None
    if "--config-dir" in words:
        place = words.index("--config-dir")
        config_dir = words[place + 1]
        del words[place : place + 2]
    overrides = [word for word in words if re.match(r"^[+~]*[\w./@]+=", word)]
    compose("train" if command == "train" else "finetune", overrides, config_dir)


@functools.cache
def help_of(command: str) -> str:
    """What a command prints for `--help`; every command has one."""
    if command in ("finetune", "train"):
        # Hydra's flags; its help lists every setting, which takes a second.
        return "--config-dir --multirun -m --cfg"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert exit_code(lambda: main([command, "--help"])) == 0, f"no command {command}"
    return said.getvalue()
