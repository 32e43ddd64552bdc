"""A run, files and folders are scored into one value, which shows and saves itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hsf_finetune.cli.main import main
from hsf_finetune.evaluation.evaluate import evaluate_files, evaluate_run, evaluate_weights
from hsf_finetune.evaluation.score_tables import MEAN, read_scores
from hsf_finetune.system.errors import ConfigError, DataError, OutputError
from tests.conftest import CONF, oblique_affine, save_nifti, tiny_case
from tests.weights.sources.test_nnunet_folder import PLAIN as NNUNET

NAMES = {10: "anterior", 20: "posterior"}


def test_files_are_scored_and_shown(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", tiny_case(1)[1])
    found = evaluate_files(path, path, NAMES)
    assert [(row.case, row.score.class_name, row.score.dice) for row in found.rows] == [
        ("a", "anterior", 1.0),
        ("a", "posterior", 1.0),
    ]
    assert [one.class_name for one in found.summary] == ["anterior", "posterior", MEAN]
    for text in (str(found), found._repr_html_()):
        assert all(part in text for part in ("anterior", "posterior", MEAN, "1.000", "a.nii.gz"))
    assert found._repr_html_().startswith("<pre")
    with pytest.raises(ConfigError, match="label values to classes"):
        evaluate_files(path, path, {"anterior": 10})  # type: ignore[dict-item]


def test_scores_are_saved_once(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", tiny_case(1)[1])
    found = evaluate_files(path, path)
    found.save(tmp_path / "scores.csv")
    assert tuple(read_scores(tmp_path / "scores.csv")) == found.rows
    with pytest.raises(OutputError, match="exists"):
        found.save(tmp_path / "scores.csv")


def test_a_run_is_scored_on_a_side_of_its_split(source_run: Path) -> None:
    found = evaluate_run(source_run, device="cpu")
    stored = read_scores(source_run / "validation_scores.csv")
    assert [(row.case, row.score.dice) for row in found.rows] == [
        (row.case, pytest.approx(row.score.dice)) for row in stored
    ]
    assert found.title == f"{source_run.name} on 2 validation cases; NSD within 1 mm"
    with pytest.raises(ConfigError, match="no test cases"):
        evaluate_run(source_run, "test")
    with pytest.raises(ConfigError, match="not the folder of a run"):
        evaluate_run(source_run / "checkpoints")


def test_it_is_said_that_cases_trained_the_model(
    source_run: Path, data: Path, tmp_path: Path
) -> None:
    given = ["datasets=tiny_source", f"datasets.main_path={data}"]
    for weights in (source_run, source_run / "checkpoints" / "best.ckpt"):
        found = evaluate_weights(weights, given, CONF, device="cpu")
        assert "on 5 cases, 3 of which also trained; NSD" in found.title
    run = tmp_path / "run"
    shutil.copytree(source_run, run)
    split = json.loads((run / "splits.json").read_text())
    both = [*split["train"], *split["validation"]]
    split |= {"held_out": False, "train": both, "validation": both}
    (run / "splits.json").write_text(json.dumps(split))
    found = evaluate_run(run, device="cpu")
    assert "on 5 validation cases, which also trained; NSD" in found.title
    assert "which also trained" in " ".join(str(found).split())


def test_a_label_against_itself_is_perfect(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", tiny_case(1)[1])
    rows = evaluate_files(path, path, NAMES, 1.0).rows
    assert [(r.case, r.score.class_name, r.score.dice, r.score.hd95_mm) for r in rows] == [
        ("a", "anterior", 1.0, 0.0),
        ("a", "posterior", 1.0, 0.0),
    ]


def test_distances_are_in_millimetres_along_the_files_axes(tmp_path: Path) -> None:
    truth = tiny_case(1)[1]
    label = save_nifti(tmp_path / "label.nii.gz", truth)
    for axis, size_mm in enumerate((0.8, 1.0, 1.2)):
        moved = save_nifti(tmp_path / "moved.nii.gz", np.roll(truth, 1, axis))
        whole = evaluate_files(moved, label, {10: "all"}, size_mm * 1.01).rows[0].score
        assert whole.hd95_mm == pytest.approx(size_mm, rel=1e-3)
        assert whole.nsd == pytest.approx(1.0)


def test_without_names_every_value_of_any_file_is_scored(tmp_path: Path) -> None:
    truth = tiny_case(1)[1]
    one = save_nifti(tmp_path / "one.nii.gz", np.where(truth == 10, 3, 0).astype(np.float32))
    two = save_nifti(tmp_path / "two.nii.gz", truth)
    rows = {r.score.class_name: r.score for r in evaluate_files(one, two, {}, 1.0).rows}
    assert list(rows) == ["3", "10", "20"]
    assert rows["3"].outcome == "false_positive"
    assert rows["10"].outcome == "missed"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for folder in ("out", "labels"):
        for name in ("sub-01/x.nii.gz", "sub-02/x.nii.gz"):
            save_nifti(tmp_path / folder / name, tiny_case(1)[1])
    return tmp_path / "out", tmp_path / "labels"


def test_folders_pair_by_path_whatever_the_suffix(folders: tuple[Path, Path]) -> None:
    out, labels = folders
    (out / "sub-01" / "x.nii.gz").unlink()
    save_nifti(out / "sub-01" / "x.nii", tiny_case(1)[1])
    (labels / "readme.txt").touch()
    rows = evaluate_files(out, labels, NAMES, 1.0).rows
    assert [r.case for r in rows] == ["sub-01/x", "sub-01/x", "sub-02/x", "sub-02/x"]
    assert all(r.score.dice == 1 for r in rows)


def test_files_without_a_partner_are_listed(folders: tuple[Path, Path]) -> None:
    out, labels = folders
    save_nifti(out / "extra.nii.gz", tiny_case(1)[1])
    (out / "sub-02" / "x.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        evaluate_files(out, labels, NAMES, 1.0)
    assert "2 predictions, 2 labels" in str(caught.value)
    assert "without a label: extra" in str(caught.value)
    assert "without a prediction: sub-02/x" in str(caught.value)


def test_two_files_of_one_name_are_refused(folders: tuple[Path, Path]) -> None:
    out, labels = folders
    save_nifti(labels / "sub-01" / "x.nii", tiny_case(1)[1])
    with pytest.raises(DataError, match="suffix only"):
        evaluate_files(out, labels, NAMES, 1.0)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    truth = tiny_case(1)[1]
    label = save_nifti(tmp_path / "label.nii.gz", truth)
    moved = oblique_affine()
    moved[2, 3] += 3
    for name, array, affine, said in (
        ("small", truth[1:], None, "differ in shape"),
        ("moved", truth, moved, "different grids"),
        ("soft", truth * 0.37, None, "whole numbers"),
    ):
        wrong = save_nifti(tmp_path / f"{name}.nii.gz", np.asarray(array, np.float32), affine)
        with pytest.raises(DataError, match=said) as caught:
            evaluate_files(wrong, label, NAMES, 1.0)
        assert name in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        evaluate_files(tmp_path / "nowhere", label, NAMES, 1.0)
    with pytest.raises(DataError, match="a file and the other a folder"):
        evaluate_files(label, tmp_path, NAMES, 1.0)
    with pytest.raises(DataError, match="tolerance"):
        evaluate_files(label, label, NAMES, -1.0)


def test_values_of_one_class_are_scored_as_one(tmp_path: Path) -> None:
    truth = tiny_case(1)[1]
    label = save_nifti(tmp_path / "label.nii.gz", truth)
    merged = save_nifti(tmp_path / "merged.nii.gz", np.where(truth == 20, 10, truth))
    (row,) = evaluate_files(merged, label, {10: "blob", 20: "blob"}, 1.0).rows
    assert (row.score.class_name, row.score.dice) == ("blob", 1.0)


def test_weights_by_others_are_scored_on_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label that the model knows in parts is scored by the sum of these."""
    for number in (1, 2):
        image, label = tiny_case(number)
        for channel in range(2):
            save_nifti(tmp_path / "lab" / f"c{number}_000{channel}.nii.gz", image)
        save_nifti(tmp_path / "lab" / f"c{number}_seg.nii.gz", label)
    dataset = {
        "path": "lab",
        "patterns": {"a": {"mri": ["*_0000.nii.gz", "*_0001.nii.gz"], "label": "*_seg.nii.gz"}},
        "labels": {10: 1, 20: 1},
        "labels_names": {1: "whole"},
        "label_sets": {"whole": ["anterior", "posterior"]},
    }
    file = tmp_path / "conf" / "datasets" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"datasets": {"mine": dataset}}))
    given = ["datasets=mine", f"datasets.main_path={tmp_path}"]
    command = ["evaluate", str(NNUNET), *given, "--config-dir", str(tmp_path / "conf")]
    with pytest.raises(SystemExit) as stop:
        main([*command, "-o", str(tmp_path / "scores.csv")])
    assert not stop.value.code
    assert "on 2 cases" in capsys.readouterr().out
    (name,) = {row.score.class_name for row in read_scores(tmp_path / "scores.csv")}
    assert name == "whole"
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(NNUNET), str(tmp_path), *given])
    assert stop.value.code == 2
    assert "evaluate WEIGHTS datasets=mine" in capsys.readouterr().err
