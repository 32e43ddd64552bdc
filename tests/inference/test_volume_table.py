"""The table of volumes: rows of several processes, and of repeated runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.formats.output_formats import OutputChoice
from hsf_finetune.inference.scan_jobs import SegmentOptions
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.inference.volume_table import VolumeTable
from hsf_finetune.system.atomic_files import read_csv
from hsf_finetune.system.errors import OutputError
from tests.conftest import save_nifti, tiny_case
from tests.export.models import random_model

WRITER = """
import sys
from pathlib import Path
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.volume_table import VolumeTable
table = VolumeTable(Path(sys.argv[1]), ("DG", "CA1"))
for number in range(8):
    table.write_row(VolumeRef(Path(f"/scans/{sys.argv[2]}{number}.nii")), {"DG": 1, "CA1": 2}, ())
"""


def test_rows_of_parallel_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "volumes.tsv"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    header, *rows = read_csv(path, delimiter="\t")
    assert header == ["scan", "DG_mm3", "CA1_mm3", "remarks"]
    assert {row[0] for row in rows} == {f"/scans/{name}{n}.nii" for name in "ab" for n in range(8)}
    assert len(rows) == 16


def test_a_row_is_replaced_in_its_place(tmp_path: Path) -> None:
    table = VolumeTable(tmp_path / "volumes.tsv", ("DG",))
    one, two = VolumeRef(Path("/a.nii")), VolumeRef(Path("/b.h5"), "t2")
    table.write_row(one, {"DG": 1.5}, ())
    table.write_row(two, {}, ("failed: no such file",))
    table.write_row(one, {"DG": 2.5}, ("scan/noise", "scan/noise"))
    assert (tmp_path / "volumes.tsv").read_text() == (
        "scan\tDG_mm3\tremarks\n/a.nii\t2.5\tscan/noise\n/b.h5:t2\t\tfailed: no such file\n"
    )
    assert table.missing([one, two, VolumeRef(Path("/c.nii"))]) == [VolumeRef(Path("/c.nii"))]
    with pytest.raises(OutputError, match=r"other classes[\s\S]*DG_mm3"):
        VolumeTable(tmp_path / "volumes.tsv", ("CA1",)).write_row(one, {"CA1": 1}, ())


def test_volumes_of_small_voxels_keep_their_digits(tmp_path: Path) -> None:
    table = VolumeTable(tmp_path / "volumes.tsv", ("mitochondrion",))
    table.write_row(VolumeRef(Path("/a.h5")), {"mitochondrion": 1919 * 1.92e-15}, ())
    assert "\t3.68448e-12\t" in (tmp_path / "volumes.tsv").read_text()


def test_a_row_is_added_without_reading_the_others_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = VolumeTable(tmp_path / "volumes.tsv", ("DG",))
    table.write_row(VolumeRef(Path("/first.nii")), {"DG": 1}, ())
    monkeypatch.setattr("hsf_finetune.inference.scan_table.read_csv", None)
    monkeypatch.setattr("hsf_finetune.inference.scan_table.write_csv", None)
    for name in ("/=b.nii", "/c.nii"):
        table.write_row(VolumeRef(Path(name)), {"DG": 2}, ("=1+1",))
    monkeypatch.undo()
    rows = read_csv(table.path, delimiter="\t")
    assert [row[0] for row in rows] == ["scan", "/first.nii", "/=b.nii", "/c.nii"]
    assert rows[3] == ["/c.nii", "2", "=1+1"]


@pytest.mark.parametrize("rest", ["/b.n", "/b.nii\t"])
def test_a_row_that_a_power_cut_left_half_written_is_not_counted(tmp_path: Path, rest: str) -> None:
    table = VolumeTable(tmp_path / "volumes.tsv", ("DG",))
    a, b = VolumeRef(Path("/a.nii")), VolumeRef(Path("/b.nii"))
    table.write_row(a, {"DG": 1}, ())
    with table.path.open("a") as file:
        file.write(rest)
    assert table.missing([a, b]) == [b]
    table.write_row(b, {"DG": 2}, ())
    assert [row[0] for row in read_csv(table.path, delimiter="\t")] == ["scan", "/a.nii", "/b.nii"]


def test_predict_fills_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, image = random_model(), tiny_case(1)[0]
    for name in "ab":
        save_nifti(tmp_path / "scans" / f"{name}.nii.gz", image, np.diag([1.0, 2, 3, 1]))
    (tmp_path / "scans" / "c.nii.gz").write_text("damaged")
    path = tmp_path / "volumes.tsv"
    scans = [tmp_path / "scans" / f"{name}.nii.gz" for name in "abc"]
    segment_files(model, scans[:1], tmp_path / "out")
    options = SegmentOptions(outputs=OutputChoice(volumes=path))
    segment_files(model, scans, tmp_path / "out", options)
    said = " ".join(capsys.readouterr().out.split())
    assert "without the rows of 1 scan segmented before" in said
    assert "a.nii.gz" in said
    _, b, c = read_csv(path, delimiter="\t")
    expected = model.predict(scans[1]).volumes_mm3
    assert [float(cell) for cell in b[1:3]] == pytest.approx([*expected.values()], rel=1e-6)
    assert c[1:] == ["", "", "failed: the file is damaged or incomplete"]
    before = path.read_bytes()
    segment_files(model, scans, tmp_path / "out", options)
    assert path.read_bytes() == before


def test_a_table_that_was_not_written_is_not_named_as_if_it_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, path = tmp_path / "a.nii.gz", tmp_path / "volumes.tsv"
    save_nifti(scan, tiny_case(1)[0])
    segment_files(random_model(), [scan], tmp_path / "out")
    capsys.readouterr()
    options = SegmentOptions(outputs=OutputChoice(volumes=path))
    segment_files(random_model(), [scan], tmp_path / "out", options)
    assert not path.exists()
    said = " ".join(capsys.readouterr().out.split())
    assert "volumes.tsv was not written, since no scan was segmented now; --overwrite" in said
    assert "without the rows" not in said
