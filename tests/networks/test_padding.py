"""Padding to sizes that a network can halve."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms.croppad.array import DivisiblePad
from torchio import EnsureShapeMultiple

from hsf_finetune.networks.padding import Padding, pad_to, padded_shape, remove_padding

triples = st.tuples(*[st.integers(1, 60)] * 3)
divisors = st.tuples(*[st.sampled_from([1, 2, 4, 8, 16])] * 3)


@given(triples, divisors)
def test_the_padded_shape_is_the_smallest_with_two_voxels_left_after_halving(
    shape: tuple[int, int, int], divisor: tuple[int, int, int]
) -> None:
    for n, d, padded in zip(shape, divisor, padded_shape(shape, divisor), strict=True):
        least = 2 * d if d > 1 else 1
        assert padded % d == 0
        assert padded >= max(n, least)
        assert padded - d < max(n, least)


@given(triples, divisors)
def test_a_padded_shape_stays_as_it_is(
    shape: tuple[int, int, int], divisor: tuple[int, int, int]
) -> None:
    padded = padded_shape(shape, divisor)
    assert padded_shape(padded, divisor) == padded


@pytest.mark.parametrize("padding", ["both", "symmetric", "end"])
@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(0, 3)] * 3))
def test_padding_holds_its_value_and_can_be_removed(
    padding: Padding, shape: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    volume = torch.rand(2, *shape)
    padded = pad_to(volume, [n + w for n, w in zip(shape, more, strict=True)], 7.0, padding)
    assert torch.equal(remove_padding(padded, shape, padding), volume)
    assert (padded == 7).sum() == padded.numel() - volume.numel()


@given(st.tuples(*[st.integers(1, 20)] * 3))
@settings(deadline=None)
def test_padding_on_both_sides_is_that_of_hsf(shape: tuple[int, int, int]) -> None:
    volume = torch.rand(1, *shape)
    expected = EnsureShapeMultiple(8, method="pad")(volume)
    padded = pad_to(volume, [-(-n // 8) * 8 for n in shape], 0.0)
    assert torch.equal(padded, expected)


@given(st.tuples(*[st.integers(1, 20)] * 3))
@settings(deadline=None)
def test_symmetric_padding_is_that_of_monai(shape: tuple[int, int, int]) -> None:
    volume = torch.rand(1, *shape)
    padded = pad_to(volume, [-(-n // 8) * 8 for n in shape], 0.0, "symmetric")
    assert torch.equal(padded, DivisiblePad(8)(volume))


def test_padding_at_the_end_is_that_of_version_0_1_0() -> None:
    volume = torch.rand(1, 3, 4, 5)
    padded = pad_to(volume, (4, 7, 9), 0.0, "end")
    assert torch.equal(padded[:, :3, :4, :5], volume)


def test_label_rows_keep_their_type() -> None:
    padded = pad_to(torch.ones(3, 3, 3, dtype=torch.uint8), (4, 3, 5), 2)
    assert padded.dtype == torch.uint8
    assert padded[0].unique().tolist() == [2]
