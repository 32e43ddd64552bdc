"""The command `hsf-finetune`: finds the command's file, and explains errors."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import getpass
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from hsf_finetune.system.errors import ConfigError, OutputError, TrainingError, UserError
from hsf_finetune.system.interruption import end_with, heed_interrupts
from hsf_finetune.system.version import __version__

if TYPE_CHECKING:
    from hsf_finetune.config.settings import Settings
    from hsf_finetune.experiment.run_result import RunResult

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143

HYDRA_COMMANDS = {
    "finetune": "fine-tune a pretrained network (the same as python finetune.py)",
    "train": "train from random weights (the same as python train.py)",
}
COMMANDS = {
    "check": "check images and labels before anything is trained on them",
    "advise": "say which settings suit these data and weights, and why",
    "plan": "show which blocks train when and at which rate, without training",
    "predict": "segment scans with a trained model",
    "export": "write a trained model for another program, and prove it there",
    "convert": "write a dataset as nnU-Net's raw data, or nnU-Net's plans as settings",
    "evaluate": "score segmentations against labels, or a run on one side of its split",
    "compare": "fine-tune with every preset and compare the results, or compare finished runs",
    "next": "choose which scans without labels to segment by hand next",
    "learn": "go on from a trained model with segmentations that were corrected",
    "report": "write one HTML page about a run: to read, print and send",
    "weights": "list the published weights that have a name, with licence and contract",
    "cache": "list what is kept between runs, and remove what is no longer used",
    "init": "write the dataset YAML that describes a folder of images and labels",
    "phantom": "write the phantom cohort that the demo runs on",
}
"""Commands with a file each, `cli/NAME_command.py`, which is imported when it is typed."""


NOT_FOR_PREDICT = (
    "hydra", "jinja2", "lightning", "matplotlib", "omegaconf", "SimpleITK", "tensorboard", "torchio",
)  # fmt: skip
"""Packages that this one depends on, and that segmenting NIfTI files does not need."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `hsf-finetune`.

    Args:
        arguments: of the command line; None is this process's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else ""
    if name in HYDRA_COMMANDS:
        # Hydra has a command line of its own, --help included.
        launch_or_explain(name, given[1:])
    elif name in COMMANDS:
        command = importlib.import_module(f"hsf_finetune.cli.{name}_command")
        parser = _Parser(f"hsf-finetune {name}", description=command.__doc__)
        command.add_arguments(parser)
        options = parser.parse_intermixed_args(given[1:])
        sys.exit(explain(lambda: command.run(options)))
    else:
        _Parser.of_all_commands().parse_args(given)


def launch_or_explain(config: str, arguments: Sequence[str] | None = None) -> None:
    """Composes `finetune` or `train` from the command line and runs it."""

    def launch_task() -> int:
        from hsf_finetune.cli.hydra_launcher import launch

        launch(config, _run, arguments)
        return 0

    code = explain(launch_task)
    if code:
        sys.exit(code)


def _name_user() -> None:
    """Gives a user that the machine has no name for one, which MONAI needs to be imported.

    So it is in containers, with `docker run --user 1234`.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = "user"


def _run(settings: Settings) -> RunResult:
    # Imported late: a wrong setting is then reported at once.
    from hsf_finetune.cli.quick_start import import_training

    import_training()
    from hsf_finetune.experiment.run import run_experiment

    return run_experiment(settings)


def explain(action: Callable[[], int]) -> int:
    """Runs an action; an error that the user can mend becomes one message and exit code 2.

    Args:
        action: returns its exit code.
    """
    _name_user()
    # SIGTERM (a cluster, a container) ends like Ctrl+C: with half-written files removed.
    with contextlib.suppress(ValueError):  # not the main thread of its process
        signal.signal(signal.SIGTERM, lambda *_: end_with(SystemExit(EXIT_TERMINATED)))
    try:
        with heed_interrupts():
            return action()
    except BrokenPipeError:
        # The reader of our output (`| head`) has ended; Python's own exit would fail on it too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        explained = _explanation(error)
        if explained is None:
            raise
        from hsf_finetune.system.console import show_controls

        print(f"error: {show_controls(str(explained))}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns SIGTERM into a SystemExit without a code.
        interrupted = isinstance(stop, KeyboardInterrupt)
        terminated = type(stop).__name__ == "SIGTERMException" or stop.args == (EXIT_TERMINATED,)
        if not (interrupted or terminated):
            raise
        what = "interrupted" if interrupted else "terminated"
        from hsf_finetune.system.run_folder import interrupted_run

        run = interrupted_run(stop)
        how = f"continue the run with resume={run}" if run else "continue a run with resume=auto"
        print(f"{what}; {how}", file=sys.stderr)
        return EXIT_INTERRUPTED if interrupted else EXIT_TERMINATED


def _explanation(error: Exception) -> UserError | None:
    """The error with what to do about it; None for a defect of the program."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            "the disk is full",
            file=error.filename,
            found=error.strerror,
            fix="free some space, or write elsewhere; nothing half-written was left behind",
        )
    if isinstance(error, UnicodeEncodeError):
        near = error.object[max(error.start - 60, 0) : error.end + 20]
        return OutputError(
            "a name holds bytes that are no characters",
            found=repr(near),
            fix="rename the file or folder, or correct the name in the YAML",
        )
    if isinstance(error, ModuleNotFoundError) and error.name in NOT_FOR_PREDICT:
        return ConfigError(
            f"the package {error.name} is not installed, which `predict` alone does not need",
            fix="pip install hsf-finetune (without --no-deps)",
        )
    # By its name, since importing PyTorch would make --help slow.
    if type(error).__name__ == "OutOfMemoryError":
        return TrainingError(
            "the GPU's memory is too small for this",
            found=str(error).splitlines()[0],
            fix="training: datasets.batch_size=1, a smaller datasets.patch_vox or models.channels;"
            "\npredicting: --device cpu",
        )
    # PyTorch has a class of its own for NCCL only.
    if type(error).__name__.startswith("Dist") or "third_party/gloo" in str(error):
        return TrainingError(
            "another process of this run was lost",
            found=str(error).splitlines()[0],
            fix="look at the messages of the others; resume=auto continues the run",
        )
    return None


class _Parser(argparse.ArgumentParser):
    """Suggests the command, or the value of an option, that a misspelt one was meant to be."""

    def __init__(self, prog: str, description: str | None) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=raw)

    @classmethod
    def of_all_commands(cls) -> _Parser:
        """The parser of `hsf-finetune --help`."""
        listed = "\n".join(f"  {n:<10}{text}" for n, text in {**HYDRA_COMMANDS, **COMMANDS}.items())
        parser = cls(
            "hsf-finetune",
            "Fine-tune pretrained 3D segmentation networks on a few manual segmentations.\n\n"
            f"commands:\n{listed}\n\n`hsf-finetune COMMAND --help` says more about each.",
        )
        parser.add_argument("--version", action="version", version=__version__)
        names = [*HYDRA_COMMANDS, *COMMANDS]
        parser.add_argument("command", metavar="COMMAND", choices=names, help="one of these")
        return parser

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.+)\)", message)
        known = re.findall(r"[\w-]+", found.group(2)) if found else []
        close = difflib.get_close_matches(found.group(1), known, n=1) if found else []
        super().error(f"{message}; did you mean '{close[0]}'?" if close else message)
