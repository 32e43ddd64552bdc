"""The page of scans that were segmented names what segmented them."""

from __future__ import annotations

from pathlib import Path

from hsf_finetune.inference.ensemble import Ensemble
from hsf_finetune.inference.scan_jobs import SegmentOptions
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.report.prediction_report import report_predictions
from hsf_finetune.report.save_report import save_predictions_report
from hsf_finetune.system.console import format_size
from tests.conftest import save_nifti, tiny_case
from tests.export.models import random_model


def test_several_models_failed_scans_and_volumes_are_named(tmp_path: Path) -> None:
    save_nifti(tmp_path / "in" / "good.nii.gz", tiny_case(1)[0])
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"no image")
    several = Ensemble([random_model(), random_model()])
    results = segment_files(several, [tmp_path / "in"], tmp_path / "out", SegmentOptions())
    save_predictions_report(results, several, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "2 models, 2 passes for each scan" in page
    assert "1 scan segmented" in page
    assert "1 failed" in page
    good = next(result for result in results if result.status == "written")
    assert all(format_size(volume) in page for volume in good.volumes_mm3.values())
    one = report_predictions(results, random_model())
    assert "passes for each scan" not in str(one)


def test_what_was_not_looked_at_is_not_called_usual(tmp_path: Path) -> None:
    model = random_model()
    save_nifti(tmp_path / "in" / "a.nii.gz", tiny_case(1)[0])
    pages = [
        str(report_predictions(segment_files(model, [tmp_path / "in"], tmp_path / "out"), model))
        for _ in range(2)
    ]
    segmented, skipped = pages
    assert "None of them is unlike" in segmented
    assert "The first segmentations" in segmented  # nothing says which to look at first
    assert "Look at these first" not in segmented
    assert "No scan was compared with the training data" in skipped
    assert "None of them is unlike" not in skipped
