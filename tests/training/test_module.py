"""What the optimiser is given."""

import pytest
from torch import nn

from hsf_finetune.networks.build import build
from hsf_finetune.schedule.strategies import plan
from hsf_finetune.settings import FinetuningSettings, LightningSettings, NetworkSettings
from hsf_finetune.training.losses import build_loss
from hsf_finetune.training.module import SegmentationModule
from tests.networks.test_build import SETTINGS


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_every_parameter_is_in_one_group_and_only_weights_decay(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    schedule = plan(
        anatomy, FinetuningSettings(strategy="full"), settings, LightningSettings(max_epochs=2)
    )
    module = SegmentationModule(
        anatomy, schedule, 5, ("background", "a", "b"), build_loss("dice_ce"), 0.01, None,
        (32, 32, 32), {},
    )  # fmt: skip
    configured = module.configure_optimizers()
    assert isinstance(configured, dict)
    groups = configured["optimizer"].param_groups
    seen = [id(p) for group in groups for p in group["params"]]
    assert len(seen) == len(set(seen)) == len(list(anatomy.network.parameters()))
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    norms = [m for m in anatomy.network.modules() if "norm" in type(m).__name__.lower()]
    biases = [
        m.bias
        for m in anatomy.network.modules()
        if isinstance(m, nn.modules.conv._ConvNd) and m.bias is not None
    ]
    gentle = [p for norm in norms for p in norm.parameters(recurse=False)] + biases
    assert gentle
    assert not decaying & {id(p) for p in gentle}
    assert decaying
