"""What the optimiser is given."""

import pytest
from torch import nn

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.networks.build import build
from hsf_finetune.training.parameter_groups import parameter_groups
from tests.networks.small_settings import SETTINGS


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_every_parameter_is_in_one_group_and_only_weights_decay(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    groups = [group for block in anatomy.blocks for group in parameter_groups(block)]
    seen = [id(p) for group in groups for p in group["params"]]
    assert len(seen) == len(set(seen)) == len(list(anatomy.network.parameters()))
    owner = {id(p): b.name for b in anatomy.blocks for p in b.parameters()}
    assert all(owner[id(p)] == group["name"] for group in groups for p in group["params"])
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    norms = [m for m in anatomy.network.modules() if "norm" in type(m).__name__.lower()]
    biases = [
        m.bias
        for m in anatomy.network.modules()
        if isinstance(m, nn.modules.conv._ConvNd) and m.bias is not None
    ]
    own = {id(p) for block in anatomy.blocks for n in block.norms() for p in n.parameters()}
    assert own == {id(p) for group in groups if group["norms"] for p in group["params"]}
    gentle = [p for norm in norms for p in norm.parameters(recurse=False)] + biases
    assert gentle
    assert not decaying & {id(p) for p in gentle}
    assert decaying
