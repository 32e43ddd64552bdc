"""The command `check`: an earlier report is shown again only while nothing has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hsf_finetune
from hsf_finetune.check.check_data import check_data
from hsf_finetune.cli.check_command import check
from hsf_finetune.planning import plan_run as plan_run_module
from tests.conftest import CONF, FAST, SUBJECTS, save_nifti, tiny_case

SCAN = "tiny/sub-03/sub-03_T2w.nii.gz"
LABEL = "tiny/sub-03/sub-03_dseg.nii.gz"


class Checked:
    """A cohort with a YAML of its own, and how often its data were really checked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.checks = root, 0
        self.conf = root.parent / "conf"
        shutil.copytree(CONF, self.conf)
        self.given = [
            "datasets=tiny_source",
            f"datasets.main_path={root}",
            f"datasets.output_path={root}/outputs",
            *FAST,
        ]

        def counted(*arguments: object) -> object:
            self.checks += 1
            return check_data(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(plan_run_module, "check_data", counted)

    def check(self, output: Path | None = None, strict: bool = False) -> int:
        return check(self.given, config_dir=self.conf, output=output, jobs=1, strict=strict)

    def reports(self) -> list[Path]:
        return sorted((self.root / "outputs").glob("*_check_tiny*"))


@pytest.fixture
def cohort(own_data: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    return Checked(own_data, monkeypatch)


def test_the_second_time_the_same_is_printed_and_nothing_written(
    cohort: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cohort.check() == 0
    first = capsys.readouterr().out
    (report,) = cohort.reports()
    written = {path: path.stat().st_mtime_ns for path in report.iterdir()}
    assert cohort.check() == 0
    second = capsys.readouterr().out
    assert cohort.checks == 1
    assert second == first.replace("(0 unch", f"({SUBJECTS} unch")
    assert cohort.reports() == [report]
    assert {path: path.stat().st_mtime_ns for path in report.iterdir()} == written


def test_warnings_are_printed_again_and_each_folder_has_its_pictures(
    cohort: Checked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(cohort.root / SCAN, cohort.root / "tiny/sub-04/sub-04_T2w.nii.gz")
    printed = []
    for name in ("a", "b", "b"):
        assert cohort.check(tmp_path / name, strict=True) == 2
        printed.append(capsys.readouterr().out.replace(f"{tmp_path}/{name} ", "REPORT "))
    assert cohort.checks == 2
    assert "refused" in printed[0]
    assert printed[1] == printed[2] == printed[0].replace("(0 unch", f"({SUBJECTS} unch")
    pictures = [sorted(p.name for p in (tmp_path / x / "pictures").iterdir()) for x in "ab"]
    assert pictures[0] == pictures[1] != []


def _new_scan(cohort: Checked) -> None:
    for name, array in zip(("T2w", "dseg"), tiny_case(11), strict=True):
        save_nifti(cohort.root / f"tiny/sub-11/sub-11_{name}.nii.gz", array)


def _same_size_and_time(cohort: Checked) -> None:
    path = cohort.root / SCAN
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES: dict[str, Callable[[Checked], object]] = {
    "label": lambda c: save_nifti(c.root / LABEL, tiny_case(12)[1]),
    "damage that hides": _same_size_and_time,
    "new subject": _new_scan,
    "subject gone": lambda c: shutil.rmtree(c.root / "tiny/sub-05"),
    "yaml": lambda c: (c.conf / "datasets/tiny_source.yaml").write_text(
        (c.conf / "datasets/tiny_source.yaml").read_text().replace("blob", "lump")
    ),
    "a yaml that shadows": lambda c: shutil.copy(
        Path(hsf_finetune.__file__).parents[1] / "conf/augmentation/none.yaml",
        (c.conf / "augmentation").mkdir(exist_ok=True) or c.conf / "augmentation/none.yaml",
    ),
    "overrides": lambda c: c.given.append("datasets.train_ratio=0.7"),
    "report gone": lambda c: shutil.rmtree(c.reports()[0]),
    "report edited": lambda c: (c.reports()[0] / "check.json").write_text("{}"),
    "permissions": lambda c: (c.root / SCAN).chmod(0o600),
}


MORE = {"new subject": 1, "subject gone": -1}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_checked_again(cohort: Checked, change: str) -> None:
    cohort.check()
    cohort.check()
    assert cohort.checks == 1
    CHANGES[change](cohort)
    cohort.check()
    assert cohort.checks == 2
    newest = json.loads((cohort.reports()[-1] / "check.json").read_text())
    assert len(newest["cases"]) == SUBJECTS + MORE.get(change, 0)


def test_folders_behind_links_are_included(cohort: Checked) -> None:
    """As datalad and many a BIDS folder have them, one that leads back included."""
    elsewhere = cohort.root.parent / "elsewhere"
    for number in (1, 2):
        subject = f"sub-{number:02d}"
        (cohort.root / "tiny" / subject).rename(elsewhere.with_name(f"elsewhere{number}"))
        (cohort.root / "tiny" / subject).symlink_to(elsewhere.with_name(f"elsewhere{number}"))
    (elsewhere.with_name("elsewhere1") / "back").symlink_to(cohort.root / "tiny")
    cohort.given.append("datasets.datasets.tiny.exclude=['*/back/**']")
    cohort.check()
    cohort.check()
    assert cohort.checks == 1
    for name, array in zip(("T2w", "dseg"), tiny_case(13), strict=True):
        save_nifti(elsewhere.with_name("elsewhere2") / f"sub-02_run-2_{name}.nii.gz", array)
    cohort.check()
    assert cohort.checks == 2
    newest = json.loads((cohort.reports()[-1] / "check.json").read_text())
    assert len(newest["cases"]) == SUBJECTS + 1


def test_what_changes_during_the_check_is_checked_again(
    cohort: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = plan_run_module.check_data

    def slow(*arguments: object) -> object:
        report = counted(*arguments)  # type: ignore[arg-type]
        save_nifti(cohort.root / LABEL, tiny_case(cohort.checks)[1])
        return report

    monkeypatch.setattr(plan_run_module, "check_data", slow)
    cohort.check()
    cohort.check()
    assert cohort.checks == 2


@pytest.mark.parametrize("word", ["oc.env", "hydra."])
def test_settings_from_outside_are_not_kept(
    cohort: Checked, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATIO", "0.6")
    more = {"oc.env": "datasets.train_ratio=${oc.env:RATIO}", "hydra.": "hydra.verbose=false"}
    cohort.given.append(more[word])
    cohort.check()
    cohort.check()
    assert cohort.checks == 2


def test_weights_that_change_are_tried_again(
    cohort: Checked, source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(source_run, run)
    cohort.given.append(f"finetuning.pretrained={run}")
    for _ in range(2):
        assert cohort.check() == 0
        assert "what trains: everything" in capsys.readouterr().out
    assert cohort.checks == 1
    best = next(run.rglob("best.ckpt"))
    shutil.copy(best, best.with_suffix(".copy"))
    best.with_suffix(".copy").rename(best)
    assert cohort.check() == 0
    assert cohort.checks == 2


def test_an_earlier_report_needs_no_heavy_library(cohort: Checked) -> None:
    """Their imports alone would take longer than everything else together."""
    cohort.check()
    program = (
        "import sys; from pathlib import Path; from hsf_finetune.cli.check_command import check; "
        f"code = check({cohort.given!r}, config_dir=Path({str(cohort.conf)!r})); "
        "print(code, *[m for m in ('numpy', 'torch', 'hydra', 'pydantic') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert f"{SUBJECTS} cases ({SUBJECTS} unchanged" in ended.stdout, ended.stderr
    assert ended.stdout.splitlines()[-1] == "0"
