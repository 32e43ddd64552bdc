"""The mean of several models, on the command line and in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import hsf_finetune as hf
from hsf_finetune.cli.main import main
from hsf_finetune.inference.ensemble import Ensemble, load_models, split_models
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import ConfigError
from tests.conftest import oblique_affine, save_nifti, tiny_case
from tests.inference.test_predictor import CPU, TINY, card, predictor


def other(**changes: object) -> Predictor:
    """A model with other weights."""
    made = card(**changes)
    torch.manual_seed(1)
    return Predictor(build(TINY, made.in_channels, len(made.classes)), made, CPU)


def test_probabilities_of_differently_prepared_models_are_averaged_on_the_scans_grid() -> None:
    image = (tiny_case(1)[0], oblique_affine())
    one, two = predictor(), other(spacing_mm=(1.0, 0.9, 1.5))
    both = Ensemble([one, two])
    found = both.predict(image)
    expected = (one.predict(image).probabilities + two.predict(image).probabilities) / 2
    np.testing.assert_array_equal(found.probabilities, expected)
    np.testing.assert_array_equal(found.labels, 10 * expected.argmax(axis=0))
    assert sum(found.volumes_mm3.values()) == pytest.approx(
        np.count_nonzero(found.labels) * np.prod(found.scan.spacing_mm)
    )
    assert both.passes == 2
    assert both.with_views("shift").passes == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("background", "posterior", "anterior")}, "anterior 10, posterior 20"),
        ({"label_values": {"background": 0, "anterior": 1, "posterior": 2}}, "anterior 1, post"),
        ({"in_channels": 2}, "input channels"),
    ],
)
def test_models_that_mean_something_else_are_not_averaged(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Ensemble([predictor(), other(**change)])


def test_an_export_holds_one_network(tmp_path: Path) -> None:
    for model in (Ensemble([predictor(), other()]), predictor().with_views("shift")):
        with pytest.raises(ConfigError, match="one network"):
            hf.export(model, "checkpoint", tmp_path / "out", proof=False)
    assert not (tmp_path / "out").exists()


def test_runs_come_before_scans(
    source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, out = save_nifti(tmp_path / "scan.nii.gz", tiny_case(1)[0]), tmp_path / "out"
    last = source_run / "checkpoints" / "last.ckpt"
    command = ["predict", str(source_run), str(last), str(scan), "-o", str(out), "--device", "cpu"]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--tta", "shift", "--engine", "torch"])
    assert "2 models, 16 passes for each scan" in capsys.readouterr().out
    model = hf.load_model(source_run, last, device="cpu", tta="shift")
    written = np.asarray(nib.load(out / "scan.nii.gz").dataobj)
    np.testing.assert_array_equal(written, model.predict(scan).labels)
    with pytest.raises(ConfigError, match="no scan to segment"):
        split_models(str(source_run), [str(last)])
    with pytest.raises(ConfigError, match="no folds"):
        load_models([source_run], "folds")


def test_runs_are_scored_together_on_cases_that_none_has_trained_on(
    source_run: Path, tmp_path: Path
) -> None:
    alone = hf.evaluate(source_run)
    together = hf.evaluate([source_run, source_run])
    assert [row.score for row in together.rows] == [row.score for row in alone.rows]
    with pytest.raises(ConfigError, match="has trained on cases"):
        hf.evaluate([source_run, source_run], side="train")
    assert replace(together, rows=()) != together
