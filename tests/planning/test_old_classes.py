"""What a source model cannot teach is refused, with the lines to write."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.evaluation.head_check import HeadCheck, HeadCheckRow
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.planning.old_classes import outline_warnings
from hsf_finetune.planning.plan_run import plan_run
from hsf_finetune.system.errors import ConfigError
from tests.conftest import save_nifti
from tests.training.test_distillation import KEEP, settings_of

NOT_DRAWN = "~datasets.datasets.tiny.unannotated"


@pytest.mark.parametrize(
    ("derive_from", "more", "expected"),
    [
        ("{}", ["models.labels_names=[front]", NOT_DRAWN], "no blob"),
        ("{}", [NOT_DRAWN], r"unannotated=\[blob"),
        ("{}", ["finetuning.head=fresh"], "come from no class"),
        ("{front: blob}", [NOT_DRAWN], "nothing to teach"),
    ],
)
def test_refused(
    data: Path, source_run: Path, derive_from: str, more: list[str], expected: str
) -> None:
    settings = settings_of(data, data, source_run, KEEP, *more, derive_from=derive_from)
    with pytest.raises(ConfigError, match=expected):
        plan_run(settings, forecast=False)


def test_without_a_source_model(data: Path, outputs: Path) -> None:
    with pytest.raises(ConfigError, match="needs a source model"):
        settings_of(data, outputs, Path("none"), KEEP, "~datasets.retention.old")


def test_everywhere_teaches_where_labels_tell_everything(data: Path, source_run: Path) -> None:
    everywhere = KEEP.replace("distil", "everywhere")
    settings = settings_of(data, data, source_run, everywhere, NOT_DRAWN)
    plan_run(settings, forecast=False)


@pytest.mark.parametrize(
    ("mode", "dice", "said"),
    [
        ("everywhere", [0.8496, 0.8496], "0.850 on c0, c1"),
        ("everywhere", [0.7, 0.9, math.nan], "0.800 on c0, c1, c2"),
        ("everywhere", [0.8, 0.94], ""),
        ("everywhere", [0.4, 0.95, 0.95], "0.767 on c0, c1, c2"),
        ("everywhere", [], ""),
        ("distil", [0.8], ""),
    ],
)
def test_an_outline_that_does_not_fit_the_labels_is_said(
    data: Path, outputs: Path, mode: str, dice: list[float], said: str
) -> None:
    settings = settings_of(data, outputs, data, KEEP.replace("distil", mode))
    lines = outline_warnings(settings, checks_of(dice))
    assert [said in line and "blob" in line for line in lines] == [True] * bool(said)


def test_an_outline_that_is_not_found_is_refused_by_the_mean(data: Path, outputs: Path) -> None:
    settings = settings_of(data, outputs, data, KEEP.replace("distil", "everywhere"))
    with pytest.raises(ConfigError, match=r"mean Dice on c0, c1: blob 0\.450"):
        outline_warnings(settings, checks_of([0.6, 0.3]))


def checks_of(dice: list[float]) -> list[HeadCheck]:
    rows = [HeadCheckRow("blob", ("front", "blob"), value, value) for value in dice]
    return [HeadCheck(f"c{number}", (row,), 1.0) for number, row in enumerate(rows)]


@pytest.mark.parametrize("contrast", ["as it was", "inverted"])
def test_a_source_that_does_not_find_its_classes_is_no_teacher(
    data: Path, outputs: Path, source_run: Path, tmp_path: Path, contrast: str
) -> None:
    for path in (data / "tiny").rglob("*.nii.gz"):
        image = nib.nifti1.load(path)
        values = np.asarray(image.dataobj)
        other = values.max() - values if "T2w" in path.name and contrast == "inverted" else values
        save_nifti(tmp_path / path.relative_to(data), other, image.affine)
    keep = KEEP.replace("distil", "everywhere")
    more = ["lightning.max_epochs=1", "datasets.train_ratio=0.5"]
    given = settings_of(tmp_path, outputs / "run", source_run, keep, *more)
    if contrast == "inverted":
        with pytest.raises(
            ConfigError, match=r"(?s)does not find its classes.* on \S+, \S+: blob 0\.[0-4]"
        ):
            run_experiment(given)
        assert not (outputs / "run").exists()
    else:
        assert run_experiment(given).after
