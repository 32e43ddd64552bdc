"""Weights by others predict as they are, if they say their classes and how scans are prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.config.settings import UNetSettings
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_jobs import plan_jobs
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import WeightsError
from tests.conftest import save_nifti, tiny_case
from tests.weights.sources.nnunet_v1_model import write_model
from tests.weights.sources.test_nnssl_file import _file as write_nnssl

STORED = Path(__file__).parents[1] / "weights" / "stored" / "nnunet"
[PLAIN] = (path for path in (STORED / "plain").iterdir() if path.is_dir())


def _v1(folder: Path) -> Path:
    write_model(folder / "model")
    return folder / "model"


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        (lambda folder: PLAIN, {"background": 0, "anterior": 1, "posterior": 2}),
        (
            lambda folder: PLAIN / "fold_0" / "checkpoint_final.pth",
            {"background": 0, "anterior": 1, "posterior": 2},
        ),
        (_v1, {"background": 0, "label 1": 1, "label 7": 7}),
    ],
    ids=["nnU-Net v2", "a checkpoint of it alone", "nnU-Net v1"],
)
def test_they_predict_by_what_they_say(
    weights: Callable[[Path], Path], values: dict[str, int], tmp_path: Path
) -> None:
    said: list[str] = []
    path = weights(tmp_path)
    model = Predictor.load(path, device="cpu", say=said.append)
    assert model.card.label_values == values
    assert model.card.preprocessing.spacing_mm is not None
    assert model.card.preprocessing.resampling == "nnunet"
    scan = save_nifti(tmp_path / "scan.nii.gz", tiny_case(1)[0])
    found = model.predict([scan, scan])
    assert found.labels.shape == nib.load(scan).shape
    assert set(np.unique(found.labels)) <= set(values.values())
    assert "Isensee" in model.card.origin["citation"]
    text = "\n".join(said)
    for part in ("please cite: Isensee", "classes: background 0", "spacing "):
        assert part in text


def test_what_they_do_not_say_is_asked_for(tmp_path: Path) -> None:
    settings = UNetSettings(channels=[4, 8], strides=[2], features=4, num_res_units=1)
    torch.save(build(settings, 1, 3).network.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(WeightsError, match=r"(?s)classes.*finetuning.source_classes=.*--set"):
        Predictor.load(tmp_path / "plain.pt", device="cpu")
    classes = "finetuning.source_classes=[background,DG,CA1]"
    with pytest.raises(WeightsError, match=r"(?s)how scans are prepared.*preprocessing=hsf"):
        Predictor.load(tmp_path / "plain.pt", device="cpu", settings=[classes])
    given = [classes, "preprocessing=hsf", "preprocessing.spacing=[2,2,2]"]
    card = Predictor.load(tmp_path / "plain.pt", device="cpu", settings=given).card
    assert card.classes == ("background", "DG", "CA1")
    assert card.preprocessing.spacing_mm == (2, 2, 2)


def test_self_supervised_weights_have_no_classes(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="do not say what their classes are"):
        Predictor.load(write_nnssl(tmp_path / "a.pth", "ResidualEncoderUNet"), device="cpu")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["."], [("a_0000", "a_0001"), ("b_0000", "b_0001"), ("c",), ("d_0000",)]),
        (["a_0000.nii.gz"], [("a_0000", "a_0001")]),
        (["a_0001.nii.gz", "a_0000.nii.gz", "c.nii.gz"], [("a_0000", "a_0001"), ("c",)]),
        (["a_0000.nii.gz,c.nii.gz"], [("a_0000", "c")]),
    ],
)
def test_numbered_files_are_channels_of_one_scan(
    given: list[str], expected: list[tuple[str, ...]], tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a_0000", "a_0001", "b_0000", "b_0001", "c", "d_0000"):
        (scans / f"{name}.nii.gz").touch()
    paths = [",".join(str(scans / part) for part in one.split(",")) for one in given]
    jobs = plan_jobs(paths, tmp_path / "out", channels=2).jobs
    names = [tuple(ref.path.name.removesuffix(".nii.gz") for ref in job.channels) for job in jobs]
    assert names == expected
    assert [job.output.name for job in jobs] == [f"{name[0]}.nii.gz" for name in names]
    assert len(plan_jobs([scans], tmp_path / "out").jobs) == 6
