"""Windows: the same logits plane by plane as at once, in memory and in a file, as MONAI's."""

from __future__ import annotations

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from hsf_finetune.networks import sliding_windows
from hsf_finetune.networks.sliding_windows import Windows


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 3, 3, padding=1), nn.InstanceNorm3d(3), nn.Conv3d(3, 5, 1)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("shape", [(20, 9, 13), (8, 30, 8), (17, 17, 17)])
@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@torch.inference_mode()
def test_slabs_are_monais_sliding_window_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], in_file: bool, overlap: float
) -> None:
    if in_file:
        monkeypatch.setattr(sliding_windows, "_MOST_BYTES", 64)
    image, run = torch.randn(1, 1, *shape), network()
    weights = torch.rand(8, 8, 8) + 0.1
    slabs = [*Windows.at_steps(shape, (8, 8, 8), overlap, weights).slabs(run, image)]
    expected = sliding_window_inference(
        image, (8, 8, 8), 1, run, overlap, roi_weight_map=weights.clone()
    )
    assert torch.equal(torch.cat(slabs, dim=2), expected)


@torch.inference_mode()
def test_no_more_planes_are_held_than_a_window_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding_windows, "_MOST_BYTES", 8)
    image, run = torch.randn(1, 1, 64, 8, 8), network()
    seen: list[int] = []

    def record(part: Tensor) -> Tensor:
        seen.append(len(seen))
        return run(part)

    windows = Windows.at_steps((64, 8, 8), (8, 8, 8), 0.5, torch.ones(8, 8, 8))
    planes, when = 0, []
    for slab in windows.slabs(record, image):
        planes += slab.shape[2]
        when.append((planes, len(seen)))
    # Four planes are final after each window but the last, after which all are.
    assert all(planes <= 4 * seen or seen == windows.count for planes, seen in when)
    assert when[0][1] == 1
    assert planes == 64
