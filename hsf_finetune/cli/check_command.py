"""Check images and labels before anything is trained on them.

Takes the overrides of finetune.py, such as datasets=custom, or a dataset YAML. Exits with 0 if
the data are fine, 1 if labels or images lack a partner or, with --strict, if there are
warnings, and 2 if the data cannot be used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hsf_finetune.check.check_report import PICTURES, report_folder, show_report, write_report
from hsf_finetune.check.earlier_report import (
    WrittenReport,
    command_key,
    find_earlier,
    is_yaml_file,
    keep_report,
    source_paths,
)
from hsf_finetune.cli.number_options import whole_number
from hsf_finetune.system.console import count_of, progress, say
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.missing_paths import no_such_path

if TYPE_CHECKING:
    from hsf_finetune.config.settings import Settings
    from hsf_finetune.data.discovery.cases import Cohort
    from hsf_finetune.weights.files.checkpoint import Checkpoint

_PICTURES = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="YAML_or_group.key=value")
    parser.add_argument("--config-dir", type=Path, help="folder with your own YAML groups")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder of the report (default: a new one below datasets.output_path)",
    )
    parser.add_argument(
        "--jobs", type=whole_number(1), help="threads (default: as many as there are CPUs)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there are warnings")
    parser.add_argument(
        "--pictures",
        type=whole_number(0),
        default=_PICTURES,
        help=f"of flagged cases (default: {_PICTURES})",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    return check(
        options.overrides,
        config_dir=options.config_dir,
        output=options.output,
        jobs=options.jobs,
        strict=options.strict,
        pictures=max(options.pictures, 0),
    )


def check(
    arguments: Sequence[str],
    *,
    config_dir: Path | None = None,
    output: Path | None = None,
    jobs: int | None = None,
    strict: bool = False,
    pictures: int = _PICTURES,
) -> int:
    """Checks the data of a run and writes a report.

    While neither the data nor anything else that the report follows from has changed, the
    report of the last such command is shown again, and nothing is written.

    Args:
        arguments: overrides as on the command line of finetune.py, or one dataset YAML and
            overrides.
        config_dir: folder with the user's own groups.
        output: folder of the report; None is a new one below datasets.output_path.
        jobs: threads; None is one for each CPU that this process may use.
        strict: whether warnings count.
        pictures: how many flagged cases are drawn at most.

    Returns:
        The exit code, see `CheckReport.exit_code`.

    Raises:
        UserError: the configuration is wrong, or the report cannot be written.
    """
    key = command_key([*arguments, f"pictures {pictures}"], config_dir, output)
    options = (key, arguments, config_dir, output, jobs, pictures)
    written = find_earlier(key) or _check_and_write(*options)
    show_report(written.report, written.folder)
    for line in written.advice:
        say(line)
    return written.report.exit_code(strict or written.strict)


def read_checkpoint(settings: Settings, cohort: Cohort) -> Checkpoint | None:
    """The pretrained weights of a run, without printing their origin."""
    # Imported late: PyTorch takes longer to import than unchanged data to check.
    from hsf_finetune.planning.start import read_source_checkpoint

    return read_source_checkpoint(settings, cohort)


# -------------------------------------------------------------------- internals
def _check_and_write(
    key: str,
    arguments: Sequence[str],
    config_dir: Path | None,
    output: Path | None,
    jobs: int | None,
    pictures: int,
) -> WrittenReport:
    """Checks the data, writes the report, and keeps it for the next command with the key."""
    # Imported late: a report that is still valid needs none of this.
    from hsf_finetune.config.compose import compose
    from hsf_finetune.planning.plan_run import check_run

    started_ns = time.time_ns()
    with as_overrides(arguments, config_dir) as (overrides, folder_of_groups):
        settings = compose("finetune", overrides, folder_of_groups)
    data = settings.datasets
    folder = report_folder(Path(data.output_path), f"check_{'_'.join(data.datasets)}", output)
    if data.generate:
        from hsf_finetune.data.phantom.write_phantoms import make_phantom_cohort

        make_phantom_cohort(data)
    report = check_run(settings, read_checkpoint, jobs)
    write_report(folder, report)
    advice = []
    if report.cohort is not None and report.exit_code(strict=True):
        from hsf_finetune.check.case_pictures import draw_flagged_cases

        with progress("drawing flagged cases") as tick:
            cases, findings = report.cohort.cases, report.findings
            left = draw_flagged_cases(folder / PICTURES, cases, findings, pictures, tick)
        if left:
            more = f"--pictures {pictures + left} draws them all"
            advice.append(f"{count_of(left, 'flagged case')} without a picture: {more}")
    if not report.count("refused"):
        if settings.weights.pretrained in (None, "none", "demo"):
            advice.append(
                "hsf-finetune advise, with finetuning.pretrained=PATH, says which settings suit them"
            )
        else:
            from hsf_finetune.cli.advise_command import advise_on

            advice += advise_on(settings, report)
    written = WrittenReport(report, folder, settings.check == "strict", tuple(advice))
    if report.cohort is not None:
        paths = source_paths(settings, report.cohort, folder, arguments, config_dir)
        if paths is not None:
            keep_report(key, written, paths, started_ns)
    return written


@contextmanager
def as_overrides(
    arguments: Sequence[str], config_dir: Path | None
) -> Iterator[tuple[list[str], Path | None]]:
    """Overrides and folder of groups that choose the dataset YAML, where a file is given.

    Raises:
        ConfigError: there are several files, or there is none.
    """
    files = [text for text in arguments if is_yaml_file(text)]
    rest = [text for text in arguments if not is_yaml_file(text)]
    if not files:
        yield rest, config_dir
        return
    file = Path(files[0]).expanduser()
    if not file.exists():
        raise no_such_path(ConfigError, file, "datasets=custom, or my.yaml")
    if len(files) > 1 or file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise ConfigError(
            "give overrides, or one dataset YAML and overrides",
            found=" ".join(files),
            expected="datasets=custom, or my.yaml",
        )
    if config_dir is not None:
        raise ConfigError(
            "the path of a dataset YAML and --config-dir exclude each other",
            found=f"{file} --config-dir {config_dir}",
            fix=f"leave out --config-dir; or name the dataset: --config-dir {config_dir} "
            f"datasets={file.stem}",
        )
    if file.parent.name == "datasets" and file.suffix == ".yaml":
        yield [f"datasets={file.stem}", *rest], file.parent.parent
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "datasets" / "given.yaml"
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
        yield ["datasets=given", *rest], Path(folder)
