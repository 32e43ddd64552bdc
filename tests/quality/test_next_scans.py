"""The scans to segment next: which ones, and what is written of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.quality_model import QualityModel
from hsf_finetune.inference.scan_jobs import Job
from hsf_finetune.planning import run_cases
from hsf_finetune.quality.next_scans import Candidate, choose_next, rank_scans, write_next
from hsf_finetune.system.atomic_files import read_csv
from hsf_finetune.system.errors import ConfigError, DataError, OutputError
from tests.conftest import save_nifti, tiny_case
from tests.export.models import random_model

QUALITY = QualityModel({"anterior": -1.0, "posterior": -1.0}, 0.5, 0.5, 0.4, 0.85, 0.9, 4, 52)


def candidate(name: str, expected: float, place: float) -> Candidate:
    job = Job((VolumeRef(Path(name)),), Path(name))
    return Candidate(job, expected, np.array([place, 0.0]))


def test_the_least_sure_and_unlike_each_other() -> None:
    near = [candidate(f"near{n}", 0.5 + n / 100, 0.01 * n) for n in range(6)]
    far = [candidate("far", 0.6, 5.0), candidate("other", 0.61, -6.0)]
    sure = [candidate(f"sure{n}", 0.9, 100.0) for n in range(10)]
    # The eight of the least expected Dice are looked at, so that no sure one is among them.
    chosen = choose_next([*sure, *near, *far], 2)
    assert [one.job.place.name for one in chosen] == ["near0", "other"]
    assert len(choose_next(near, 10)) == len(near)
    assert choose_next([], 3) == []


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    with pytest.raises(ConfigError, match="cannot foretell"):
        rank_scans(model, tmp_path, tmp_path / "next", lambda done, total: None)
    model = model.with_card(replace(model.card, quality=QUALITY))
    for number in (1, 2, 3):
        save_nifti(tmp_path / "in" / f"sub-{number}" / "t2.nii.gz", tiny_case(number)[0])
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    out = Path("next")
    candidates, left_out = rank_scans(model, Path("in"), out, lambda done, total: None)
    assert len(candidates) == 3
    assert [path.name for path, _ in left_out] == ["broken.nii.gz"]
    assert len({one.features.shape for one in candidates}) == 1
    assert not np.allclose(candidates[0].features, candidates[1].features)
    chosen = choose_next(candidates, 2)
    header, *rows = read_csv(write_next(model, chosen, out), delimiter="\t")
    assert header == ["rank", "scan", "expected_dice", "label", "picture"]
    assert len(rows) == 2
    for (_, scan, expected, label, picture), one in zip(rows, chosen, strict=True):
        image = out / "images" / one.job.place
        assert image.resolve() == Path(scan).resolve()
        assert float(expected) == pytest.approx(one.expected, abs=1e-3)
        assert all(Path(name).is_absolute() for name in (scan, label, picture))
        assert nib.load(label).shape == nib.load(image).shape
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert (out / "labels" / "labels_itksnap.txt").exists()
    with pytest.raises(OutputError, match="may have been corrected"):
        rank_scans(model, tmp_path / "in", out, lambda done, total: None)


def run_next(run: Path, scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    model = random_model()
    model = model.with_card(replace(model.card, quality=QUALITY))
    monkeypatch.setattr(Predictor, "load", lambda *given, **more: model)
    with pytest.raises(SystemExit) as ended:
        main(["next", str(run), str(scans), "-o", str(out)])
    return int(ended.value.code or 0)


def test_what_the_run_has_learnt_from_is_not_proposed(
    source_run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scans = tmp_path / "scans"
    known = sorted((data / "tiny").rglob("*_T2w.nii.gz"))
    for number, path in enumerate(known):
        (scans / f"s{number}").mkdir(parents=True)
        # By link or by content, it is the same scan.
        put = os.symlink if number % 2 else shutil.copyfile
        put(path, scans / f"s{number}" / "t2.nii.gz")
    assert len(known) > 3
    assert run_next(source_run, scans, tmp_path / "none", monkeypatch) == 1
    said = capsys.readouterr().out
    assert said.count("used by the run with a label") == len(known)
    assert "no scan is left" in said
    new = save_nifti(scans / "new" / "t2.nii.gz", tiny_case(77)[0])
    assert run_next(source_run, scans, tmp_path / "one", monkeypatch) == 0
    _, *rows = read_csv(tmp_path / "one" / "next.tsv", delimiter="\t")
    assert [row[1] for row in rows] == [str(new)]
    capsys.readouterr()
    # Of a checkpoint alone, nothing is known.
    (tmp_path / "alone").mkdir()
    shutil.copy(source_run / "checkpoints" / "best.ckpt", tmp_path / "alone" / "best.ckpt")
    assert run_next(tmp_path / "alone" / "best.ckpt", scans, tmp_path / "all", monkeypatch) == 0
    assert "run uses" not in capsys.readouterr().out
    monkeypatch.setattr(run_cases, "discover", fail)
    assert run_next(source_run, scans, tmp_path / "lost", monkeypatch) == 0
    assert "the cases of the run cannot be found" in capsys.readouterr().out


def fail(*given: object) -> None:
    raise DataError("no such folder")
