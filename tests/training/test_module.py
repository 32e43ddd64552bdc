"""The loss of a training step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.data.augment.mixing import Mixture
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.planning.setup import prepare
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.training.train import build_module
from tests.conftest import CONF, FAST


def overrides(data: Path, *more: str) -> tuple[str, ...]:
    where = ("datasets=tiny", f"datasets.main_path={data}", "finetuning.pretrained=none")
    return (*where, *FAST, "augmentation=mri", *more)


@pytest.mark.filterwarnings("ignore:.*self.log:UserWarning")
def test_mixup_weights_the_losses_of_both_labels(data: Path) -> None:
    settings = compose("finetune", overrides(data, "augmentation.mixup_p=1"), CONF)
    module = build_module(prepare(settings, discover(settings.datasets), preview=True).job, 1)
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        image=torch.randn(3, 1, 8, 8, 8, generator=generator),
        label=torch.randint(3, (3, 8, 8, 8), generator=generator, dtype=torch.uint8),
        allowed=torch.stack([torch.eye(3).bool().roll(k, 0) for k in (0, 1, 0)]),
        spacing=torch.ones(3, 3),
        case=["a", "b", "c"],
        seed=0,
        mixture=Mixture(2, 0.3),
    )
    logits = module(batch["image"])
    other = [1, 2, 0]
    first, second = (
        module.objective.loss(logits, batch["label"][k], batch["allowed"][k])
        for k in ([0, 1, 2], other)
    )
    torch.testing.assert_close(module.training_step(batch, 0), 0.3 * first + 0.7 * second)


def test_mixing_needs_more_than_one_volume(data: Path) -> None:
    more = ("augmentation.cutmix_p=0.5", "datasets.batch_size=1")
    settings = compose("finetune", overrides(data, *more), CONF)
    with pytest.raises(ConfigError, match="batches have one"):
        prepare(settings, discover(settings.datasets), preview=True)


def test_rates_cannot_follow_a_validation_that_only_measures(data: Path) -> None:
    more = ("finetuning.lr_schedule=plateau", "finetuning.budget=fixed")
    settings = compose("finetune", overrides(data, *more), CONF)
    with pytest.raises(ConfigError, match="with a fixed budget validation only measures"):
        prepare(settings, discover(settings.datasets), preview=True)
