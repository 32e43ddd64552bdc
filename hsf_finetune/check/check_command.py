"""`hsf-finetune check` and `advise`: look at the data, or find that an earlier look stands."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hsf_finetune.check.check_report import (
    CHECK_JSON,
    LEDGER,
    PICTURES,
    Outcome,
    Report,
    findings_table,
    read_outcome,
    source_table,
    write_report,
)
from hsf_finetune.check.findings import of_tier
from hsf_finetune.check.unchanged import Earlier, Watch, recall
from hsf_finetune.system.console import console, progress, say
from hsf_finetune.system.errors import ConfigError, OutputError
from hsf_finetune.system.files import atomic_write

if TYPE_CHECKING:
    from hsf_finetune.config.settings import Settings
    from hsf_finetune.data.discovery.cases import Cohort

_SPELT_OUT = 25
"""Findings that are printed in full; check.json has all of them."""
_ELSEWHERE = ("oc.env", "searchpath", "hydra.")
"""What brings settings in from where nobody watches."""


def check(
    given: Sequence[str],
    *,
    config_dir: Path | None = None,
    output: Path | None = None,
    jobs: int | None = None,
    strict: bool = False,
) -> int:
    """Looks at the data of a run and writes a report.

    While neither the data nor anything else that the report follows from has changed, the
    earlier one is given again.

    Args:
        given: overrides as on the command line of finetune.py, or one dataset YAML and
            overrides.
        config_dir: folder with the user's own groups.
        output: folder of the report; None is a new one below datasets.output_path.
        jobs: threads; None is one for each CPU that this process may use.
        strict: whether warnings count.

    Returns:
        0 if the data are fine, 1 for warnings if strict, 2 if they cannot be used.

    Raises:
        UserError: the configuration is wrong, or the report cannot be written.
    """
    earlier = recall(given, config_dir)
    if earlier is None:
        outcome, earlier = _look(given, config_dir, output, jobs)
    else:
        outcome, earlier = _again(earlier, output)
    _show(outcome, earlier)
    return outcome.exit_code(strict or earlier.strict)


def advise(overrides: Sequence[str], config_dir: Path | None = None) -> None:
    """Says which settings suit the data and the weights of a run, and why.

    Args:
        overrides: as on the command line of finetune.py.
        config_dir: folder with the user's own groups.

    Raises:
        UserError: the data or the weights cannot be used as they are.
    """
    from hsf_finetune.check.check_run import report_on
    from hsf_finetune.config.compose import compose
    from hsf_finetune.experiment.run import make_data

    settings = compose("finetune", overrides, config_dir)
    make_data(settings)
    for line in _advice(settings, report_on(settings)):
        say(line)


# -------------------------------------------------------------------- internals
def _look(
    given: Sequence[str], config_dir: Path | None, output: Path | None, jobs: int | None
) -> tuple[Outcome, Earlier]:
    """Looks at everything, writes the report, and keeps what it followed from."""
    # Imported late: none of this is needed where an earlier look stands.
    from hsf_finetune.check.check_run import report_on
    from hsf_finetune.config.compose import compose

    watch = Watch(given, config_dir)
    with _dataset_yaml(given, config_dir) as (overrides, where):
        settings = compose("finetune", overrides, where)
    data = settings.datasets
    stem = f"check_{'_'.join(data.datasets)}"
    folder = _report_folder(Path(data.output_path), stem, output)
    if data.generate:
        from hsf_finetune.experiment.run import make_data

        make_data(settings)
    report = report_on(settings, jobs)
    write_report(folder, report)
    if report.look is not None and report.exit_code(strict=True):
        from hsf_finetune.check.figures import draw_flagged

        with progress("drawing flagged cases") as tick:
            draw_flagged(folder / PICTURES, report.look.cases, report.findings, tick)
    advice = []
    if report.exit_code(strict=False) == 0:
        if settings.finetuning.pretrained in (None, "none"):
            advice.append(
                "hsf-finetune advise, with finetuning.pretrained=PATH, says which settings suit them"
            )
        else:
            advice += _advice(settings, report)
    below, strict = Path(data.output_path), settings.check == "strict"
    earlier = Earlier(folder, below, stem, strict, tuple(advice))
    if (
        report.cohort is not None
        and _watch_inputs(watch, settings, report.cohort, folder)
        and _watch_configuration(watch, given, config_dir)
    ):
        watch.remember(earlier)
    return report, earlier


def _advice(settings: Settings, report: Report) -> list[str]:
    from hsf_finetune.experiment.run import pretrained_source
    from hsf_finetune.planning.diagnosis import advise as advice_on

    source = pretrained_source(settings, report.cohort) if report.cohort else None
    return [line for one in advice_on(settings, report, source) for line in one.lines()]


def _again(earlier: Earlier, output: Path | None) -> tuple[Outcome, Earlier]:
    """The earlier report, in a folder of its own or in that which is asked for."""
    outcome = read_outcome(earlier.folder)
    if output is not None and output.exists() and output.samefile(earlier.folder):
        return outcome, earlier
    folder = _report_folder(earlier.below, earlier.stem, output)
    for file in (CHECK_JSON, LEDGER, *_pictures(earlier.folder)):
        with atomic_write(folder / file) as temp:
            shutil.copyfile(earlier.folder / file, temp)
    return outcome, replace(earlier, folder=folder)


def _watch_inputs(watch: Watch, settings: Settings, cohort: Cohort, report: Path) -> bool:
    """Watches data and weights; False where they are not files of this machine."""
    data, tuning = settings.datasets, settings.finetuning
    own = {ref.path for case in cohort.cases for ref in case.volumes}
    # What runs and reports write may lie among the data, and is no change of them.
    written = {Path(data.output_path).resolve(), report.resolve()}
    written = {w for w in written if not any(file.is_relative_to(w) for file in own)}
    if data.split_file is not None:
        watch.files(Path(data.split_file))
    for dataset in data.datasets.values():
        root = (Path(data.main_path).expanduser() / dataset.path).resolve()
        if dataset.table is not None:
            watch.files(root / dataset.table)
        watch.folder(root, but=written)
    watch.files(*own)
    if tuning.pretrained in (None, "none"):
        return True
    if tuning.pretrained == "demo" or tuning.named is not None:
        return False
    source = Path(tuning.pretrained).expanduser()
    watch.files(source)
    watch.folder(source, ("",))
    return source.exists()


def _watch_configuration(watch: Watch, given: Sequence[str], config_dir: Path | None) -> bool:
    """Watches the YAML files; False where they say things that lie elsewhere."""
    from hsf_finetune.config.compose import conf_folder

    own = [Path(one).expanduser().absolute() for one in given if "=" not in one]
    folders = [file.parent.parent for file in own if file.parent.name == "datasets"]
    folders += [config_dir.expanduser()] if config_dir is not None else []
    watch.folder(conf_folder(), (".yaml",))
    watch.files(*own)
    yamls = [*own, *(file for folder in folders for file in watch.folder(folder, (".yaml",)))]
    texts = [*given, *(file.read_text(encoding="utf-8", errors="replace") for file in yamls)]
    return not any(word in text for text in texts for word in _ELSEWHERE)


@contextmanager
def _dataset_yaml(
    given: Sequence[str], config_dir: Path | None
) -> Iterator[tuple[list[str], Path | None]]:
    """Overrides and folder that mean the dataset YAML, where one is given as a file."""
    files = [one for one in given if "=" not in one]
    rest = [one for one in given if "=" in one]
    if not files:
        yield rest, config_dir
        return
    file = Path(files[0]).expanduser()
    if len(files) > 1 or config_dir is not None or file.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            "check takes overrides, or one dataset YAML and overrides",
            found=" ".join([*files, *(["--config-dir"] if config_dir else [])]),
            expected="hsf-finetune check datasets=custom, or hsf-finetune check my.yaml",
        )
    if not file.is_file():
        raise ConfigError("no such dataset YAML", file=file)
    if file.parent.name == "datasets" and file.suffix == ".yaml":
        yield [f"datasets={file.stem}", *rest], file.parent.parent
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "datasets" / "given.yaml"
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
        yield ["datasets=given", *rest], Path(folder)


def _report_folder(below: Path, stem: str, output: Path | None) -> Path:
    """Where the report goes: a new folder, or one that holds an earlier report."""
    if output is None:
        root = below.expanduser()
        name = f"{time.strftime('%Y%m%d-%H%M%S')}_{stem}"
        names = (name if n == 1 else f"{name}_{n}" for n in range(1, 1000))
        return next(root / name for name in names if not (root / name).exists())
    if output.exists() and not (output / CHECK_JSON).exists():
        if not output.is_dir() or any(output.iterdir()):
            raise OutputError(
                "the folder for the report is in use",
                file=output,
                fix="give a new folder with -o, or that of an earlier check",
            )
    elif output.exists():
        for picture in _pictures(output):
            (output / picture).unlink()
    return output


def _pictures(folder: Path) -> list[str]:
    """The pictures of a report, as paths within its folder."""
    return sorted(f"{PICTURES}/{path.name}" for path in (folder / PICTURES).glob("*.png"))


def _show(outcome: Outcome, made: Earlier) -> None:
    spelt = of_tier(outcome.findings, "refused", "warned")
    for finding in spelt[:_SPELT_OUT]:
        say(f"{finding.tier}: {finding.error()}")
    if len(spelt) > _SPELT_OUT:
        say(f"... and {len(spelt) - _SPELT_OUT} more in {CHECK_JSON}")
    if outcome.findings:
        console.print(findings_table(outcome.findings))
    if outcome.here is not None and outcome.source is not None:
        console.print(source_table(outcome.here, outcome.source))
    say(outcome.line())
    pictures = len(_pictures(made.folder))
    drawn = f", {pictures} pictures" if pictures else ""
    say(f"report: {made.folder} ({CHECK_JSON}, {LEDGER}{drawn})")
    for line in made.advice:
        say(line)
