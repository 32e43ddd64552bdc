"""A dataset becomes nnU-Net's raw data with the same voxels, meanings and split, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.convert.dataset_as_nnunet import write_raw_dataset
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.data.volumes.read_volume import read_volume
from hsf_finetune.describe.describe_folder import describe_folder
from hsf_finetune.system.errors import ConfigError, OutputError
from tests.conftest import CONF


def settings_of(data: Path, dataset: str = "tiny", *overrides: str) -> Settings:
    return compose("train", [f"datasets={dataset}", f"datasets.main_path={data}", *overrides], CONF)


@pytest.mark.parametrize("dataset", ["tiny", "tiny_hdf5"])
def test_cases_keep_their_voxels_classes_and_geometry(
    dataset: str, data: Path, tmp_path: Path
) -> None:
    settings, folder = settings_of(data, dataset), tmp_path / "raw" / "Dataset007_Tiny"
    write_raw_dataset(settings, folder)
    given = json.loads((folder / "dataset.json").read_text())
    assert given["labels"] == {"background": 0, "anterior": 1, "posterior": 2}
    cases = discover(settings.datasets).cases
    assert given["numTraining"] == len(cases) == len(list((folder / "labelsTr").iterdir()))
    for case in cases:
        image = nib.load(folder / "imagesTr" / f"{case.name}_0000.nii.gz")
        label = nib.load(folder / "labelsTr" / f"{case.name}.nii.gz")
        assert label.get_data_dtype() == np.uint8
        for made, ref, values in (
            (image, case.images[0], None),
            (label, case.label, [0, 10, 20]),
        ):
            own = read_volume(ref)
            np.testing.assert_allclose(made.affine, own.affine, atol=1e-5)
            found = np.asarray(made.dataobj)
            np.testing.assert_array_equal(np.array(values)[found] if values else found, own.array)


def test_the_way_back_finds_the_same_cases_and_split(data: Path, tmp_path: Path) -> None:
    settings, folder = settings_of(data), tmp_path / "raw" / "Dataset007_Tiny"
    write_raw_dataset(settings, folder)
    described = describe_folder(folder, tmp_path / "conf" / "datasets" / "back.yaml")
    overrides = ["datasets=back", f"datasets.split_file={folder / 'splits_final.json'}"]
    back = compose("train", overrides, described.parents[1])
    cohort = discover(back.datasets)
    assert set(cohort.classes.names) == {"background", "anterior", "posterior"}
    own = discover(settings.datasets).cases
    before = split_cases(own, settings.datasets, settings.seed)
    after = split_cases(cohort.cases, back.datasets, back.seed)
    for side in ("train", "validation"):
        assert [case.label.path.name.split(".")[0] for case in after.side(side)] == [
            case.name for case in before.side(side)
        ]


def test_cases_of_nnunet_keep_its_names(data: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "raw" / "Dataset007_Tiny", tmp_path / "raw" / "Dataset008_Again"
    write_raw_dataset(settings_of(data), first)
    described = describe_folder(first, tmp_path / "conf" / "datasets" / "back.yaml")
    write_raw_dataset(compose("train", ["datasets=back"], described.parents[1]), again)
    for folder in ("imagesTr", "labelsTr"):
        files = [{file.name for file in (root / folder).iterdir()} for root in (first, again)]
        assert files[0] == files[1]
    names = {file.name.removesuffix(".nii.gz") for file in (again / "labelsTr").iterdir()}
    split = json.loads((again / "splits_final.json").read_text())[0]
    assert {*split["train"], *split["val"]} == names


def test_folds_and_test_cases_are_those_of_a_run(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset007_Tiny"
    folds = settings_of(data, "tiny", "datasets.fold=all", "datasets.folds=3")
    write_raw_dataset(folds, folder)
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 3
    assert sorted(name for one in splits for name in one["val"]) == sorted(
        {*splits[0]["train"], *splits[0]["val"]}
    )
    tested = "datasets.train_val_test_idx=[[0,1,2],[3],[4]]"
    write_raw_dataset(settings_of(data, "tiny", tested), tmp_path / "Dataset008_Tiny", link=True)
    held_out = list((tmp_path / "Dataset008_Tiny" / "imagesTs").iterdir())
    assert len(held_out) == 1
    assert held_out[0].is_symlink()
    assert held_out[0].is_file()


def test_a_split_file_of_several_folds_needs_a_fold(data: Path, tmp_path: Path) -> None:
    folds = [{"train": ["sub-01"], "val": ["sub-02"]}, {"train": ["sub-02"], "val": ["sub-01"]}]
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(folds))
    settings = settings_of(data, "tiny", f"datasets.split_file={file}", "datasets.fold=1")
    cases = discover(settings.datasets).cases
    (case,) = split_cases(cases, settings.datasets, 0).validation
    assert case.subject.endswith("sub-01")
    unclear = settings.datasets.model_copy(update={"fold": "auto"})
    with pytest.raises(ConfigError, match=r"datasets\.fold=0"):
        split_cases(cases, unclear, 0)


def test_unknown_voxels_get_the_label_ignore(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset007_Tiny"
    settings = settings_of(data, "tiny", "models.use_forgiving_loss=true")
    unknown = {"labels": {10: 1}, "labels_names": {1: "anterior"}, "ignore": [20]}
    tiny = settings.datasets.datasets["tiny"].model_copy(update=unknown)
    datasets = settings.datasets.model_copy(update={"datasets": {"tiny": tiny}})
    write_raw_dataset(settings.model_copy(update={"datasets": datasets}), folder)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "anterior": 1, "ignore": 2}
    label = nib.load(next((folder / "labelsTr").iterdir()))
    assert set(np.unique(np.asarray(label.dataobj))) == {0, 1, 2}


@pytest.mark.parametrize(
    ("overrides", "name", "found"),
    [
        ([], "Tiny", "Dataset123_Tiny"),
        (
            [
                "datasets.datasets.tiny.labels_names={1: anterior, 2: whole}",
                "datasets.datasets.tiny.label_sets={whole: [anterior, posterior]}",
                "models.use_forgiving_loss=true",
                "models.labels_names=[anterior, posterior]",
            ],
            "Dataset007_Tiny",
            "whole may be anterior, posterior",
        ),
        (
            ["datasets.datasets.tiny.labels_names={1: anterior, 2: ignore}"],
            "Dataset007_Tiny",
            "a class called ignore",
        ),
    ],
    ids=["name", "set", "ignore"],
)
def test_what_nnunet_cannot_express_is_refused_by_name(
    overrides: list[str], name: str, found: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=found) as refusal:
        write_raw_dataset(settings_of(data, "tiny", *overrides), tmp_path / name)
    assert refusal.value.fix
    assert not list(tmp_path.iterdir())


def test_the_command_converts_a_run_and_writes_over_nothing(
    source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[Any] = ["convert", source_run, "-o", tmp_path / "Dataset123_Tiny"]
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    assert not stop.value.code
    assert "nnUNetv2_plan_and_preprocess -d 123" in capsys.readouterr().out
    own = json.loads((source_run / "splits.json").read_text())
    (split,) = json.loads((tmp_path / "Dataset123_Tiny" / "splits_final.json").read_text())
    assert (split["train"], split["val"]) == (own["train"], own["validation"])
    with pytest.raises(OutputError, match="never written over"):
        write_raw_dataset(settings_of(tmp_path), tmp_path / "Dataset123_Tiny")
