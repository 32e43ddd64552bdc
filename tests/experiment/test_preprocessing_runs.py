"""A model keeps how its scans were prepared, and hands it on to the one that starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Preprocessing, Settings
from hsf_finetune.config.settings.preprocessing_settings import WindowIntensity, ZScoreIntensity
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.experiment.active_run import open_run
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.plan_run import plan_run
from hsf_finetune.planning.setup import Setup, prepare
from tests.conftest import CONF, FAST, SHAPE

EXPECTED = {
    "preprocessing=nnunet": Preprocessing(
        spacing_mm=(0.8, 1.0, 1.2),
        resampling="nnunet",
        intensity=(ZScoreIntensity(),),
        intensity_first=True,
        fill_values="kept",
        crop="nonzero",
    ),
    "preprocessing=ct": Preprocessing(intensity=(WindowIntensity(low=-175, high=250),)),
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
    expected = EXPECTED[rules].model_copy(update={"patch_vox": (128, 128, 128)})
    assert how.model_copy(update={"spacing_mm": expected.spacing_mm}) == expected
    assert how.spacing_mm == (pytest.approx(expected.spacing_mm) if expected.spacing_mm else None)
    assert "Preprocessing" in said
    assert "intensities of another kind" not in said
    assert ("the data, by nnU-Net's rules" in said) == (rules == "preprocessing=nnunet")
    found = model.predict(data / "tiny" / "sub-01" / "sub-01_T2w.nii.gz")
    assert found.labels.shape == SHAPE
    setup = plan_run(settings("finetune", data, outputs, f"finetuning.pretrained={run}"))
    assert setup.card.preprocessing == how
    assert setup.prepared.origins["intensity"] == "the weights"
    own = plan_run(
        settings("finetune", data, outputs, f"finetuning.pretrained={run}", "preprocessing=hsf")
    )
    assert own.card.preprocessing == Preprocessing(patch_vox=(128, 128, 128))


def test_scans_that_are_no_ct_are_told_so(
    data: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("preprocessing.intensity={kind: window, low: -1e5, high: 1e5}",)
    with open_run(prepare_of(settings("train", data, outputs, *given))) as run:
        run.begin()
    said = capsys.readouterr().out
    assert "scans take up 0.1%" in said
    assert "-100000 to 100000 to 0 and 1, clipped" in said
