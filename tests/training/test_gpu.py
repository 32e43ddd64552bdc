"""What needs a CUDA device; run with pytest -m gpu."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import LightningSettings, LoggerSettings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.training.trainer import make_trainer
from tests.conftest import CONF, NETWORK

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("no CUDA device: pytest -m gpu is for machines that have one")


def test_precision_is_bf16_where_the_device_has_it(tmp_path: Path) -> None:
    trainer = make_trainer(LightningSettings(), LoggerSettings(name="csv"), tmp_path, 1, [])
    expected = "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    assert trainer.precision == expected


def test_a_run_trains_and_predicts_alike_on_cpu_and_gpu(data: Path, tmp_path: Path) -> None:
    settings = compose(
        "train",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            f"datasets.output_path={tmp_path}",
            "lightning.accelerator=gpu",
            "lightning.devices=1",
            "lightning.max_epochs=10",
            "models.lr=1e-2",
            "logger=csv",
            *NETWORK,
        ],
        CONF,
    )
    result = run_experiment(settings)
    cases = discover(settings.datasets).cases
    on_gpu = score_cases(Predictor.load(result.folder, device="cuda"), cases)
    on_cpu = score_cases(Predictor.load(result.folder, device="cpu"), cases)
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        assert gpu.score.dice == pytest.approx(cpu.score.dice, abs=0.02, nan_ok=True)
