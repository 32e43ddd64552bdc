"""The command `hsf-finetune`."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from hsf_finetune import __version__
from hsf_finetune.system.errors import ConfigError, OutputError, TrainingError, UserError

if TYPE_CHECKING:
    from hsf_finetune.config.settings import Settings

Command = Callable[[argparse.Namespace], int]

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `hsf-finetune`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["finetune"], ["train"]):
        # Hydra has a command line of its own, --help included.
        launch_or_explain(given[0], given[1:])
        return
    options, rest = _parser().parse_known_args(given)
    if rest and not options.takes_overrides:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = [*getattr(options, "overrides", []), *rest]
    command: Command = options.command
    sys.exit(explain(lambda: command(options)))


def launch_or_explain(config: str, arguments: Sequence[str] | None = None) -> None:
    """Composes `finetune` or `train` from the command line and runs it."""

    def launched() -> int:
        from hsf_finetune.cli.hydra_launcher import launch

        launch(config, _execute, arguments)
        return 0

    code = explain(launched)
    if code:
        sys.exit(code)


def _execute(settings: Settings) -> object:
    # Imported late: a wrong setting is then reported at once.
    from hsf_finetune.experiment.run import execute

    return execute(settings)


def explain(action: Callable[[], int]) -> int:
    """Runs an action; an error that the user can mend becomes one message and exit code 2."""
    try:
        return action()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; Python's own exit would complain too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns the former into the latter.
        if not isinstance(stop.__context__ or stop, KeyboardInterrupt):
            raise
        print("interrupted; continue a run with resume=auto", file=sys.stderr)
        return EXIT_INTERRUPTED


def _known(error: Exception) -> UserError | None:
    """What a user can do about an error; None where it is a defect of the program."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            "the disk is full",
            file=error.filename,
            found=error.strerror,
            fix="free some space, or write elsewhere; nothing half-written was left behind",
        )
    # PyTorch's class goes by its name, since importing it would make --help slow.
    if type(error).__name__ == "OutOfMemoryError":
        return TrainingError(
            "the GPU's memory is too small for this",
            found=str(error).splitlines()[0],
            fix="training: datasets.batch_size=1, a smaller datasets.patch_vox or models.channels;"
            "\npredicting: --device cpu",
        )
    return None


class _Parser(argparse.ArgumentParser):
    """Knows what was meant by a command, or an option's value, that is misspelt."""

    def error(self, message: str) -> NoReturn:
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.+)\)", message)
        known = re.findall(r"[\w-]+", found.group(2)) if found else []
        close = difflib.get_close_matches(found.group(1), known, n=1) if found else []
        super().error(f"{message}; did you mean '{close[0]}'?" if close else message)


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hsf-finetune",
        description="Fine-tune pretrained 3D segmentation networks on a few manual segmentations.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "finetune",
        help="fine-tune a pretrained network (the same as python finetune.py)",
        add_help=False,
    )
    commands.add_parser(
        "train", help="train from random weights (the same as python train.py)", add_help=False
    )
    _add_check(commands)
    _add_advise(commands)
    _add_plan(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    _add_init(commands)
    _add_phantom(commands)
    return parser


def _add_check(commands: _Commands) -> None:
    check = commands.add_parser(
        "check",
        help="look at the data before anything is trained on them",
        description="Takes the overrides of finetune.py, such as datasets=custom, or a dataset "
        "YAML. Exits with 0 if the data are fine, 1 for warnings with --strict, and 2 if they "
        "cannot be used.",
    )
    check.add_argument("overrides", nargs="*", metavar="YAML_or_group.key=value")
    check.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    check.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder of the report (default: a new one below datasets.output_path)",
    )
    check.add_argument("--jobs", type=int, help="threads (default: as many as there are CPUs)")
    check.add_argument("--strict", action="store_true", help="exit with 1 if there are warnings")
    check.set_defaults(command=_check, takes_overrides=True)


def _check(options: argparse.Namespace) -> int:
    from hsf_finetune.check.check_command import check

    return check(
        options.overrides,
        config_dir=options.config_dir,
        output=options.output,
        jobs=options.jobs,
        strict=options.strict,
    )


def _add_advise(commands: _Commands) -> None:
    advise = commands.add_parser(
        "advise",
        help="say which settings suit these data and weights, and why",
        description="Takes the overrides of finetune.py, such as datasets=custom "
        "finetuning.pretrained=RUN. Looks at the cases, compares classes, voxel size and contrast "
        "with those of the source model, tries it on a few cases, and gives each piece of advice "
        "with its reason and the override to paste. Nothing is trained.",
    )
    advise.add_argument("overrides", nargs="*", metavar="group.key=value")
    advise.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    advise.set_defaults(command=_advise, takes_overrides=True)


def _advise(options: argparse.Namespace) -> int:
    from hsf_finetune.check.check_command import advise

    advise(options.overrides, options.config_dir)
    return 0


def _add_plan(commands: _Commands) -> None:
    plan = commands.add_parser(
        "plan",
        help="show which blocks train when and at which rate, without training",
        description="Takes the overrides of finetune.py, such as datasets=custom "
        "finetuning.mode=encoder.",
    )
    plan.add_argument("overrides", nargs="*", metavar="group.key=value")
    plan.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    plan.add_argument("-o", "--output", type=Path, help="picture to write: .png, .pdf or .svg")
    plan.add_argument(
        "--forecast",
        action="store_true",
        help="also make a few dry steps, and say what the run takes in memory and time",
    )
    plan.set_defaults(command=_plan, takes_overrides=True)


def _plan(options: argparse.Namespace) -> int:
    from hsf_finetune.config.compose import compose
    from hsf_finetune.experiment.run import preview_plan

    settings = compose("finetune", options.overrides, options.config_dir)
    preview_plan(settings, options.output, forecast=options.forecast)
    return 0


def _add_predict(commands: _Commands) -> None:
    predict = commands.add_parser("predict", help="segment scans with a trained model")
    predict.add_argument("model", help="folder of a run, or a checkpoint")
    predict.add_argument(
        "scans",
        nargs="+",
        help="images or folders; the channels of one scan are joined by commas",
    )
    predict.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    predict.add_argument("--checkpoint", choices=["best", "last"], default="best")
    predict.add_argument("--key", help="HDF5: dataset inside the files")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    predict.add_argument("--overwrite", action="store_true", help="redo existing segmentations")
    predict.set_defaults(command=_predict, takes_overrides=False)


def _predict(options: argparse.Namespace) -> int:
    from hsf_finetune.inference.apply import predict

    return predict(
        options.model,
        options.scans,
        options.output,
        checkpoint=options.checkpoint,
        key=options.key,
        device=options.device,
        overwrite=options.overwrite,
    )


def _add_evaluate(commands: _Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score segmentations against labels, or a run on one side of its split",
        description="hsf-finetune evaluate PREDICTION LABEL compares two files, or the files of "
        "two folders by name; hsf-finetune evaluate RUN scores a run's model.",
    )
    evaluate.add_argument("prediction", type=Path, metavar="PREDICTION_OR_RUN")
    evaluate.add_argument("label", type=Path, nargs="?")
    evaluate.add_argument(
        "--split", choices=["train", "validation", "test"], default="validation", help="of a run"
    )
    evaluate.add_argument(
        "--labels", default="", help="names of label values: 1=DG,2=CA1 (default: every value)"
    )
    evaluate.add_argument("--tolerance-mm", type=float, default=1.0, help="of the surface Dice")
    evaluate.add_argument("-o", "--output", type=Path, help="CSV to write")
    evaluate.add_argument("--device", default="auto")
    evaluate.set_defaults(command=_evaluate, takes_overrides=False)


def _evaluate(options: argparse.Namespace) -> int:
    from hsf_finetune.inference.apply import evaluate_files, evaluate_run

    if options.label is None:
        evaluate_run(
            options.prediction, options.split, options.tolerance_mm, options.output, options.device
        )
    else:
        evaluate_files(
            options.prediction, options.label, options.labels, options.tolerance_mm, options.output
        )
    return 0


def _add_compare(commands: _Commands) -> None:
    compare = commands.add_parser(
        "compare",
        help="fine-tune with every preset and compare the results, or compare runs that are there",
        description="hsf-finetune compare OVERRIDES takes the overrides of finetune.py, such as "
        "datasets=custom, and makes one run per preset: same split, seed and epochs "
        "(lightning.max_epochs; unless set, the length of the default preset's schedule). The same "
        "command again goes on where it was interrupted. hsf-finetune compare --runs RUN RUN ... "
        "compares runs that have ended.",
    )
    compare.add_argument("overrides", nargs="*", metavar="group.key=value")
    compare.add_argument(
        "--presets",
        metavar="A,B,...",
        help="options of finetuning= (default: all that are shipped)",
    )
    compare.add_argument("--runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    compare.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    compare.add_argument(
        "--reference", metavar="NAME", help="which one to take differences to (default: full)"
    )
    compare.add_argument(
        "--on",
        choices=["validation", "test"],
        help="side of the split to compare on (default: test where there is one)",
    )
    compare.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder to write into (default: one below datasets.output_path, or beside the runs)",
    )
    compare.set_defaults(command=_compare, takes_overrides=True)


def _compare(options: argparse.Namespace) -> int:
    from hsf_finetune.experiment.compare import compare_presets, compare_runs
    from hsf_finetune.experiment.presets import PRESETS

    if options.runs is None:
        compare_presets(
            options.overrides,
            presets=options.presets.split(",") if options.presets else PRESETS,
            config_dir=options.config_dir,
            output=options.output,
            reference=options.reference,
            side=options.on,
        )
        return 0
    if options.overrides or options.presets or options.config_dir:
        raise ConfigError(
            "--runs compares runs as they are",
            found=" ".join([*options.overrides, options.presets or ""]).strip() or "--config-dir",
            fix="leave out either --runs, or overrides, --presets and --config-dir",
        )
    compare_runs(options.runs, output=options.output, reference=options.reference, side=options.on)
    return 0


def _add_init(commands: _Commands) -> None:
    init = commands.add_parser(
        "init",
        help="look at a folder of images and labels and write the dataset YAML that describes it",
        description="Knows BIDS, nnU-Net's and the Medical Segmentation Decathlon's imagesTr and "
        "labelsTr, folders per subject, flat folders and HDF5 files. What is uncertain is marked "
        "'# unsure:' in the YAML, and listed.",
    )
    init.add_argument("folder", type=Path, metavar="FOLDER", help="your data")
    init.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR/datasets/NAME.yaml",
        help="file to write (default: my_conf/datasets/FOLDER.yaml)",
    )
    init.add_argument("--force", action="store_true", help="overwrite it if it is there")
    init.set_defaults(command=_init, takes_overrides=False)


def _init(options: argparse.Namespace) -> int:
    from hsf_finetune.describe.describe_folder import describe_folder

    describe_folder(options.folder, options.output, force=options.force)
    return 0


def _add_phantom(commands: _Commands) -> None:
    phantom = commands.add_parser("phantom", help="write the phantom cohort that the demo runs on")
    phantom.add_argument("folder", type=Path)
    phantom.add_argument("--seed", type=int, default=0)
    phantom.set_defaults(command=_phantom, takes_overrides=False)


def _phantom(options: argparse.Namespace) -> int:
    from hsf_finetune.data.phantom.write_phantoms import write_cohort
    from hsf_finetune.system import console

    with console.progress(f"phantom cohort in {options.folder}") as tick:
        write_cohort(options.folder, seed=options.seed, progress=tick)
    console.say(f"the phantom cohort is in {options.folder}")
    return 0
