"""Whole volumes: any size in gives the same size out, in one piece or through windows."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.networks.padding import Padding, pad_to
from hsf_finetune.networks.volumetric import volume_logits
from tests.closeness import assert_equal_up_to_rounding

sizes = st.tuples(*[st.integers(1, 20)] * 3)
TO_WINDOW = {"padding": "symmetric", "padded_size": "window"}


def windows(*window_vox: int, **more: Any) -> Preprocessing:
    return Preprocessing.model_validate({"window_vox": window_vox, **more})


class Recorder(nn.Module):
    """Acts on each voxel by itself, and remembers the sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(2, 3, 1)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape[2:]))
        return self.head(image)


@pytest.fixture(scope="module")
def network() -> Recorder:
    torch.manual_seed(0)
    return Recorder().eval()


@given(sizes)
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_windows_give_what_the_whole_volume_gives(
    network: Recorder, shape: tuple[int, int, int]
) -> None:
    image = torch.randn(1, 2, *shape)
    windowed = volume_logits(network, image, (4, 4, 4), windows(8, 8, 8))
    assert windowed.shape == (1, 3, *shape)
    assert_equal_up_to_rounding(windowed, network.head(image))


@given(sizes, st.tuples(*[st.sampled_from([1, 2, 4])] * 3), st.tuples(*[st.integers(3, 24)] * 3))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_the_network_sees_sizes_that_it_can_halve(
    network: Recorder,
    shape: tuple[int, int, int],
    divisor: tuple[int, int, int],
    patch: tuple[int, int, int],
) -> None:
    network.seen.clear()
    logits = volume_logits(network, torch.randn(2, 2, *shape), divisor, windows(*patch))
    assert logits.shape == (2, 3, *shape)
    for seen in network.seen:
        assert all(n % d == 0 for n, d in zip(seen, divisor, strict=True))


@torch.no_grad()
def test_a_volume_that_fits_goes_in_one_piece(network: Recorder) -> None:
    network.seen.clear()
    volume_logits(network, torch.randn(1, 2, 16, 9, 12), (8, 8, 8), windows(16, 16, 16))
    assert network.seen == [(16, 16, 16)]


@torch.no_grad()
def test_windows_are_blended_without_seams() -> None:
    ramp = nn.Conv3d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(ramp.weight, 1 / 27)
    image = torch.ones(1, 1, 32, 8, 8)
    logits = volume_logits(ramp, image, (1, 1, 1), windows(16, 8, 8))[0, 0, 2:-2, 4, 4]
    # At a window's border the zero padding costs a third; its neighbour outweighs it.
    assert float(logits.min()) > 0.95


def smoothing_network() -> nn.Sequential:
    """A random network that sees about as far as the distance of two windows' centres."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n in range(6):
        inputs = 1 if n == 0 else 6
        layers += [nn.Conv3d(inputs, 6, 3, padding=1, bias=False), nn.Tanh()]
        nn.init.normal_(layers[-2].weight, std=(27 * inputs) ** -0.5)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.Conv3d(6, 3, 1, bias=False)).eval()


@torch.no_grad()
def test_windows_flip_fewer_voxels_than_with_weights_that_are_flat_at_the_border() -> None:
    network, image = smoothing_network(), torch.randn(1, 1, 48, 48, 48)
    whole = volume_logits(network, image, (4, 4, 4), windows(48, 48, 48)).argmax(1)
    pieces = volume_logits(network, image, (4, 4, 4), windows(16, 16, 16)).argmax(1)
    old = windows(16, 16, 16, padding="end")
    flat = volume_logits(network, image, (4, 4, 4), old).argmax(1)
    flipped, before = (float((found != whole).float().mean()) for found in (pieces, flat))
    assert 0 < flipped < 0.7 * before


@torch.no_grad()
def test_a_window_is_no_longer_than_the_volume(network: Recorder) -> None:
    network.seen.clear()
    volume_logits(network, torch.randn(1, 2, 40, 9, 12), (8, 8, 8), windows(16, 64, 64))
    assert set(network.seen) == {(16, 16, 16)}


@torch.no_grad()
def test_volumes_are_padded_as_training_batches_are(network: Recorder) -> None:
    image = torch.randn(1, 2, 13, 9, 30)
    seen: list[Tensor] = []

    def record(padded: Tensor) -> Tensor:
        seen.append(padded)
        return network(padded)

    for padding in get_args(Padding):
        seen.clear()
        logits = volume_logits(record, image, (8, 8, 8), windows(32, 32, 32, padding=padding))
        assert torch.equal(seen[0], pad_to(image, (16, 16, 32), 0.0, padding))
        assert_equal_up_to_rounding(logits, network.head(image))


@torch.no_grad()
def test_windows_to_which_volumes_are_padded_are_evenly_spread() -> None:
    seen: list[Tensor] = []

    def record(part: Tensor) -> Tensor:
        seen.append(part[0, 0, :, 0, 8].long())
        return part

    image = torch.arange(110.0)[:, None, None].expand(1, 1, 110, 9, 8)
    logits = volume_logits(record, image, (1, 1, 1), windows(64, 8, 16, **TO_WINDOW))
    # Those that nnU-Net gives as its example: steps of 23 voxels for 110 of which 64 are seen.
    assert sorted({int(part[0]) for part in seen}) == [0, 23, 46]
    assert len(seen) == 3 * 2
    assert_equal_up_to_rounding(logits, image)


@torch.no_grad()
def test_small_volumes_are_padded_to_windows_where_asked(network: Recorder) -> None:
    network.seen.clear()
    image = torch.randn(1, 2, 13, 9, 30)
    how = windows(32, 16, 24, **TO_WINDOW)
    assert volume_logits(network, image, (8, 8, 8), how).shape[2:] == image.shape[2:]
    assert set(network.seen) == {(32, 16, 24)}
    network.seen.clear()
    volume_logits(network, image, (8, 8, 8), windows(32, 16, 32, padding="symmetric"))
    assert set(network.seen) == {(16, 16, 32)}
