"""Sureness of a segmentation, the table of expected Dice, and the list of scans to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.quality_model import TEMPERATURE, QualityModel, SurenessSums
from hsf_finetune.inference.quality_table import QualityTable
from hsf_finetune.inference.scan_jobs import SegmentOptions
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.system.atomic_files import read_csv
from hsf_finetune.system.console import console
from hsf_finetune.system.errors import ConfigError
from tests.conftest import save_nifti, tiny_case
from tests.export.models import VALUES, random_model

QUALITY = QualityModel({"anterior": 0.2, "posterior": -0.2}, 1.0, 0.5, 0.4, 0.85, 0.9, 4, 52)


def test_sureness_adds_up() -> None:
    logits = torch.randn((3, 4, 5, 6), generator=torch.Generator().manual_seed(0)) * 4
    whole, parts = SurenessSums(), SurenessSums()
    whole.add(logits)
    for part in logits.split(2, dim=1):
        parts.add(part)
    assert parts.sureness() == pytest.approx(whole.sureness())
    p, found = (logits / TEMPERATURE).softmax(dim=0), logits.argmax(dim=0)
    for number in (1, 2):
        inside = p[number][found == number].sum()
        expected = 2 * inside / ((found == number).sum() + p[number].sum())
        assert whole.sureness()[number - 1] == pytest.approx(float(expected))
    sure = SurenessSums()
    sure.add(torch.where(found == torch.arange(3)[:, None, None, None], 100.0, 0.0))
    assert sure.sureness() == pytest.approx((1, 1))


@pytest.mark.parametrize("spacing", [None, (1.5, 1.0, 0.9)])
def test_sureness_leaves_labels_as_they_are(spacing: tuple[float, ...] | None) -> None:
    model = random_model(**({"spacing_mm": spacing} if spacing else {}))
    volumes = model.read((tiny_case(1)[0], np.eye(4)))
    plain, sure = model.segment(volumes), model.segment(volumes, sure=True)
    np.testing.assert_array_equal(plain.labels, sure.labels)
    assert (plain.sureness, plain.foretold, sure.foretold) == ((), (), ())
    assert all(0 < one <= 1 for one in sure.sureness)


def test_the_card_keeps_it() -> None:
    card = replace(random_model().card, quality=QUALITY)
    assert ModelCard.from_dict(card.to_dict()).quality == QUALITY
    old = {name: value for name, value in card.to_dict().items() if name != "quality"}
    assert ModelCard.from_dict(old).quality is None


def test_sureness_is_of_the_temperature_of_the_card() -> None:
    given = QUALITY.to_dict()
    del given["temperature"]  # as in cards that were written before it had a name
    model = random_model()
    volumes = model.read((tiny_case(1)[0], np.eye(4)))
    found = []
    for quality in (QualityModel.from_dict(given), replace(QUALITY, temperature=TEMPERATURE)):
        asked = model.with_card(replace(model.card, quality=quality)).segment(volumes)
        found.append(asked.sureness)
    assert found[1] == model.segment(volumes, sure=True).sureness
    assert all(soft < sharp for soft, sharp in zip(*found, strict=True))


def test_predict_lists_the_worst(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 400)  # long paths are not cut into lines
    model = random_model()
    model = model.with_card(replace(model.card, quality=QUALITY))
    for number in (1, 2):
        save_nifti(tmp_path / "in" / f"{number}.nii.gz", tiny_case(number)[0])
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    results = segment_files(model, [tmp_path / "in"], out, SegmentOptions(review=2))
    header, *rows = read_csv(out / "quality.tsv", delimiter="\t")
    assert header == ["scan", "class", "expected_dice", "lower_bound", "flags", "reason"]
    names = [(Path(row[0]).name, row[1]) for row in rows]
    classes = [*VALUES][1:]
    scans = [(f"{n}.nii.gz", name) for n in (1, 2) for name in (*classes, "mean")]
    assert sorted(names) == sorted([*scans, ("broken.nii.gz", "mean")])
    foretold = {r.job.place.name: {f.class_name: f for f in r.foretold} for r in results}
    for (scan, name), row in zip(names, rows, strict=True):
        if scan == "broken.nii.gz":
            assert row[2:5] == ["", "", "failed"]
        else:
            assert float(row[2]) == pytest.approx(foretold[scan][name].dice, abs=1e-3)
            assert float(row[3]) == pytest.approx(foretold[scan][name].low, abs=1e-3)
    printed = capsys.readouterr().out
    assert "Look at these 2 of 3 scans first" in printed
    worst = min(("1.nii.gz", "2.nii.gz"), key=lambda scan: foretold[scan]["mean"].dice)
    listed = printed[printed.index("Look at these") :].replace("\n", "")
    assert listed.index("broken.nii.gz") < listed.index(worst)
    segment_files(model, [tmp_path / "in"], out, SegmentOptions(review=1))
    assert len(read_csv(out / "quality.tsv", delimiter="\t")) == 1 + len(rows)


def test_reasons() -> None:
    table = QualityTable(Path("quality.tsv"), QUALITY)
    poor, good = (QUALITY.foretell(("anterior",), (sureness,)) for sureness in (0.5, 0.95))
    assert "less sure" in table._reasons(poor[0])[0]
    assert table._reasons(good[0]) == []


def test_review_needs_a_model_that_can_tell(tmp_path: Path) -> None:
    scan = save_nifti(tmp_path / "1.nii.gz", tiny_case(1)[0])
    with pytest.raises(ConfigError, match=r"--review[\s\S]*quality=on"):
        segment_files(random_model(), [scan], tmp_path / "out", SegmentOptions(review=1))
    table = QualityTable(tmp_path / "quality.tsv", QUALITY)
    table.write_scan(VolumeRef(scan), QUALITY.foretell(("anterior",), (0.5,)), ())
    assert table.missing([VolumeRef(scan)]) == []
