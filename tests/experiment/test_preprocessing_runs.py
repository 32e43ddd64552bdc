"""A model keeps how its scans were prepared, and hands it on to the one that starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Preprocessing, Settings
from hsf_finetune.config.settings.preprocessing_settings import WindowIntensity, ZScoreIntensity
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.experiment.active_run import open_run
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.plan_run import check_run, plan_run, preview_run
from hsf_finetune.planning.setup import Setup, prepare
from hsf_finetune.planning.start import read_source_checkpoint
from hsf_finetune.weights.sources.read_source import find_checkpoint
from tests.conftest import CONF, FAST, SHAPE

EXPECTED = {
    "preprocessing=nnunet": Preprocessing(
        spacing_mm=(0.8, 1.0, 1.2),
        resampling="nnunet",
        intensity=(ZScoreIntensity(),),
        intensity_first=True,
        fill_values="kept",
        crop="nonzero",
        padding="symmetric",
        padded_size="window",
        patch_vox=SHAPE,
        window_vox=SHAPE,
        sides="mirrored",
    ),
    "preprocessing=ct": Preprocessing(
        intensity=(WindowIntensity(low=-175, high=250),),
        patch_vox=(128, 128, 128),
        sides="mirrored",
    ),
}


def prepare_of(given: Settings) -> Setup:
    return prepare(given, discover(given.datasets, given.models))


def settings(config: str, data: Path, outputs: Path, *more: str) -> Settings:
    given = ("datasets=tiny", f"datasets.main_path={data}", f"datasets.output_path={outputs}")
    return compose(config, [*given, *FAST, "lightning.max_epochs=1", *more], CONF)


@pytest.mark.parametrize("rules", EXPECTED)
def test_a_run_hands_on_its_preprocessing(
    rules: str, data: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_experiment(settings("train", data, outputs, rules, "augmentation=mri")).folder
    said = capsys.readouterr().out
    model = Predictor.load(run, device="cpu")
    how = model.card.preprocessing
    expected = EXPECTED[rules]
    assert how.model_copy(update={"spacing_mm": expected.spacing_mm}) == expected
    assert how.spacing_mm == (pytest.approx(expected.spacing_mm) if expected.spacing_mm else None)
    assert "Preprocessing" in said
    assert "mirrored in training, too" in said
    assert ("no voxel is below 0" in said) == (rules == "preprocessing=ct")
    assert ("the data, by nnU-Net's rules" in said) == (rules == "preprocessing=nnunet")
    found = model.predict(data / "tiny" / "sub-01" / "sub-01_T2w.nii.gz")
    assert found.labels.shape == SHAPE
    setup = plan_run(settings("finetune", data, outputs, f"finetuning.pretrained={run}"))
    assert setup.card.preprocessing == how.model_copy(update={"sides": "kept"})
    assert setup.prepared.origins["intensity"] == "the weights"
    own = plan_run(
        settings("finetune", data, outputs, f"finetuning.pretrained={run}", "preprocessing=hsf")
    )
    assert own.card.preprocessing == Preprocessing(patch_vox=(128, 128, 128), sides="kept")


def test_contradictions_are_told_once_by_plan_check_and_finetune(
    data: Path,
    outputs: Path,
    source_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Statistics of CT, and voxels of 3 mm, on MR of 1 mm."""
    checkpoint = torch.load(find_checkpoint(source_run, "best"), weights_only=True)
    statistics = ZScoreIntensity(clip=(-50, 90), mean=40, std=30)
    contrary = Preprocessing(spacing_mm=(3, 3, 3), intensity=(statistics,))
    checkpoint["hsf_finetune"]["preprocessing"] = contrary.to_dict()
    torch.save(checkpoint, tmp_path / "ct.ckpt")
    given = settings("finetune", data, outputs, f"finetuning.pretrained={tmp_path / 'ct.ckpt'}")
    expected = (
        "3 x 3 x 3 mm, and those of the data are 0.8 x 1 x 1.2 mm: 3.7 times",
        "of the voxels are above -50 to 90",
    )
    found = [
        finding.what
        for finding in check_run(given, read_source_checkpoint).findings
        if finding.kind in ("set/preprocessing", "source/spacing")
    ]
    capsys.readouterr()
    preview_run(given)
    planned = capsys.readouterr().out
    with open_run(prepare_of(given)) as run:
        run.begin()
    trained = capsys.readouterr().out
    for said in ("\n".join(found), planned, trained):
        flat = " ".join(said.split())
        assert [flat.count(words) for words in expected] == [1, 1]
    assert len(found) == len(expected)
