"""Parts of the scans in processes of their own: together they are one call."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.inference.formats.output_formats import OutputChoice
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_jobs import SegmentOptions, plan_jobs
from hsf_finetune.inference.scan_shards import Shard
from hsf_finetune.inference.segment_files import segment_files
from hsf_finetune.system.atomic_files import read_csv
from hsf_finetune.system.errors import OutputError
from tests.conftest import save_nifti, tiny_case
from tests.export.models import random_model
from tests.inference.test_quality_table import QUALITY

PREDICT = "import sys; from hsf_finetune.cli.main import main; main(['predict', *sys.argv[1:]])"
KILLED = f"""
import os
from hsf_finetune.inference import segment_files
write, written = segment_files.write_outputs, []
def write_and_die(*given):
    write(*given)
    written.append(given)
    if len(written) == 2:
        os._exit(9)
segment_files.write_outputs = write_and_die
{PREDICT}
"""


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of ten scans of two datasets, one of them damaged."""
    folder = tmp_path / "scans"
    for number in range(10):
        name = f"sub-{number}/anat/sub-{number}_T2w.nii.gz"
        save_nifti(folder / f"set{number % 2}" / name, tiny_case(number)[0])
    (folder / "set1" / "sub-3" / "anat" / "sub-3_T2w.nii.gz").write_text("damaged")
    return folder


def predict(run: Path, scans: Path, out: Path, *options: str, code: str = PREDICT) -> list[str]:
    tables = ["--volumes", str(out / "volumes.tsv")]
    given = [str(run), str(scans), "-o", str(out), "--engine", "torch", "--device", "cpu"]
    return [sys.executable, "-c", code, *given, *tables, *options]


def contents(folder: Path) -> dict[str, bytes]:
    """What each file holds that is not hidden."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in paths.items()
        if not any(part.startswith(".") for part in name.parts)
    }


def parts_left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.tsv") if path.parent.name.startswith(".")]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_parts_partition_the_scans(scans: Path, tmp_path: Path, count: int) -> None:
    plan = plan_jobs([scans], tmp_path / "out")
    parts = [plan.part(Shard(number, count)) for number in range(1, count + 1)]
    assert sorted(job.place for part in parts for job in part) == [j.place for j in plan.jobs]
    # A part is the same whatever other scans there are.
    plan.jobs[0].channels[0].path.unlink()
    fewer = plan_jobs([scans], tmp_path / "out")
    for number, part in enumerate(parts, start=1):
        assert fewer.part(Shard(number, count)) == tuple(j for j in part if j != plan.jobs[0])


def test_large_parts_are_about_equal() -> None:
    sizes = [sum(Shard(n, 8).holds(Path(f"s/{i}.nii")) for i in range(8000)) for n in range(1, 9)]
    assert sum(sizes) == 8000
    assert all(900 < size < 1100 for size in sizes)


def test_channels_stay_together(tmp_path: Path) -> None:
    for number in range(6):
        for channel in range(2):
            (tmp_path / f"case{number}_{channel:04d}.nii.gz").touch()
    plan = plan_jobs([tmp_path], tmp_path / "out", channels=2)
    parts = [plan.part(Shard(number, 3)) for number in (1, 2, 3)]
    assert sorted(len(job.channels) for part in parts for job in part) == [2] * 6


def test_names_are_judged_over_all_scans(tmp_path: Path) -> None:
    model = random_model()
    for folder in "ab":
        save_nifti(tmp_path / folder / "t2.nii.gz", tiny_case(1)[0])
    given = [tmp_path / "a" / "t2.nii.gz", tmp_path / "b" / "t2.nii.gz"]
    for number in (1, 2):
        with pytest.raises(OutputError, match="two scans would be written to the same file"):
            segment_files(model, given, tmp_path / "out", SegmentOptions(shard=Shard(number, 2)))


def test_processes_at_once_write_what_one_does(
    source_run: Path, scans: Path, tmp_path: Path
) -> None:
    """Also where one of them was killed in the middle, and started again."""
    one, several, bids = tmp_path / "one", tmp_path / "several", ("--format", "bids")
    assert subprocess.run(predict(source_run, scans, one, *bids)).returncode == 1
    killed = predict(source_run, scans, several, *bids, "--shard", "1/2", code=KILLED)
    assert subprocess.run(killed).returncode == 9
    running = [
        subprocess.Popen(predict(source_run, scans, several, *bids, "--shard", f"{n}/2"))
        for n in (1, 2)
    ]
    assert sorted(process.wait() for process in running) == [0, 1]  # one has the damaged scan
    expected, found = contents(one), contents(several)
    assert found.keys() == expected.keys()
    differing = {name for name in expected if found[name] != expected[name]}
    # The two datasets are numbered in the order in which a scan of each was written.
    assert all(name.endswith(".json") for name in differing)
    links = json.loads(found["dataset_description.json"])["DatasetLinks"]
    assert {*links.values()} == {(scans / f"set{n}").as_uri() for n in (0, 1)}
    for number in (0, 1, 2):
        name = f"sub-{number}/anat/sub-{number}_space-T2w_desc-finetuned_dseg.json"
        source = json.loads(found[name])["SpatialReference"].split(":")[1]
        assert links[source] == (scans / f"set{number % 2}").as_uri()
    assert parts_left(several) == []


def quality_model() -> Predictor:
    model = random_model()
    return model.with_card(replace(model.card, quality=QUALITY))


def segment(
    scans: Path, out: Path, shard: str | None, overwrite: bool = False, review: int = 0
) -> Sequence[str]:
    options = SegmentOptions(
        overwrite=overwrite,
        outputs=OutputChoice(volumes=out / "volumes.tsv"),
        review=review,
        shard=Shard.read(shard) if shard else None,
    )
    return [r.status for r in segment_files(quality_model(), [scans], out, options)]


def test_tables_have_the_rows_of_all_parts_in_the_order_of_one_call(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    segment(scans, one, None)
    for number in (3, 1, 2):
        capsys.readouterr()
        segment(scans, several, f"{number}/3", review=2)
    assert "Look at these 2 of 10 scans first" in capsys.readouterr().out
    assert contents(several) == contents(one)
    before = contents(several)
    # A part again does nothing; parts of another number replace their rows.
    assert "written" not in segment(scans, several, "1/3")
    assert "written" in segment(scans, several, "2/2", overwrite=True)
    assert "written" not in segment(scans, several, None)
    assert contents(several) == before


def test_rows_of_a_killed_part_are_collected_by_any_later_call(scans: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", quality_model()
    segment(scans, out, None)
    table = out / "quality.tsv"
    rows = read_csv(table, delimiter="\t")
    folder = out / ".quality.tsv.parts"
    folder.mkdir()
    # As a shard that was killed, and another one that was killed while it collected, leave them.
    whole, killed, taken = table.read_text().splitlines(keepends=True), [], []
    for line in whole[1:]:
        (killed if "sub-1_" in line else taken if "sub-2_" in line else []).append(line)
    (folder / "7_of_9.tsv").write_text("".join([whole[0], *killed, "/half a l"]))
    (folder / "taken-0.tsv").write_text("".join([whole[0], *taken]))
    table.write_text("".join(line for line in whole if line not in [*killed, *taken]))
    segment_files(model, [scans], out, SegmentOptions(shard=Shard(1, 100)))
    assert read_csv(table, delimiter="\t") == rows
    assert parts_left(out) == []


@pytest.mark.parametrize("text", ["0/100", "101/100", "3", "a/b", "-1/4", "1/0", "1/4/5", ""])
def test_a_part_that_does_not_exist_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["predict", "run", "scans", "-o", str(tmp_path / "out"), f"--shard={text}"])
    assert caught.value.code == 2
    assert "names no part of the scans" in capsys.readouterr().err


def test_a_page_of_one_part_is_refused(
    source_run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(source_run), str(scans), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--shard", "1/2", "--report", str(tmp_path / "page.html")])
    assert caught.value.code == 2
    assert "--review N" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_parts_use_the_same_engine(
    source_run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(source_run), str(scans), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--shard", "1/1000"])
    assert not caught.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "engine: torch, as in all parts" in said
    assert "part 1/1000: 0 of 10 scans" in said
    assert "all parts: 0 of 10 scans segmented so far" in said
