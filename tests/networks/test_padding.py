"""Padding to sizes that a network can halve."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.networks.padding import pad_to, padded_shape

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


@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(0, 3)] * 3))
def test_padding_goes_to_the_ends_and_holds_the_value(
    shape: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    x, y, z = shape
    volume = torch.rand(2, x, y, z)
    padded = pad_to(volume, [n + w for n, w in zip(shape, more, strict=True)], 7.0)
    assert torch.equal(padded[:, :x, :y, :z], volume)
    assert (padded == 7).sum() == padded.numel() - volume.numel()


def test_label_rows_keep_their_type() -> None:
    padded = pad_to(torch.ones(3, 3, 3, dtype=torch.uint8), (4, 3, 5), 2)
    assert padded.dtype == torch.uint8
    assert padded[3].unique().tolist() == [2]
