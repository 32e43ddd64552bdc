"""Fill values and empty margins: what is outside of a scan is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_finetune.data.volumes.outside import (
    fill_mask,
    fill_with_mean,
    find_content_box,
    find_fill_values,
)
from tests.data.writing import SHAPE, scan

Array = np.ndarray[Any, Any]
WIDTHS = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 3)


def planes(mask: Array) -> None:
    mask[:2] = True


def one_plane(mask: Array) -> None:
    mask[..., -1] = True


def frame(mask: Array) -> None:
    mask[:] = True
    mask[2:-2, 2:-2, 2:-2] = False


def corner(mask: Array) -> None:
    mask[-3:, :4, :2] = True


def scattered(mask: Array) -> None:
    mask.reshape(-1)[::17] = True


def most(mask: Array) -> None:
    mask[:, 1:] = True


@pytest.mark.parametrize("where", [planes, one_plane, frame, corner, scattered, most])
@pytest.mark.parametrize("value", [-32768, 65535, -1024, 1e20, -1e30, 3.4e38, 9999, 54321, -700])
def test_a_value_far_from_all_others_is_found(value: float, where: Callable[[Array], None]) -> None:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    where(mask)
    image = np.where(mask, np.float32(value), scan())
    (fill,) = find_fill_values(image)
    assert fill.value == np.float32(value)
    assert fill.voxels == mask.sum()
    np.testing.assert_array_equal(fill_mask(image, [fill]), mask)
    filled = fill_with_mean(image, mask)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    assert filled[mask] == pytest.approx(scan()[~mask].mean(), rel=1e-5)


def test_two_values_are_found_beside_each_other() -> None:
    image = scan()
    image[0], image[-1] = -32768, 65535
    assert {fill.value for fill in find_fill_values(image)} == {-32768, 65535}


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
def test_any_type_of_voxels_has_them(dtype: Any) -> None:
    image = scan().astype(dtype)
    image[:1] = -32768
    assert [fill.value for fill in find_fill_values(image)] == [-32768]


@pytest.mark.parametrize(
    "image",
    [
        scan(),
        np.maximum(scan() - 100, 0),  # half of it is the background's 0
        np.where(np.arange(10)[:, None, None] < 4, 0, 5000 + scan()),  # skull-stripped
        np.minimum(scan(), 105),  # clipped
        np.where(scan() > 100, 255, 0),  # two values, as a mask
        np.round(scan()) - 1024,  # CT of soft tissue, with air
        np.round(scan(shape=(40, 40, 40)) * 300 - 30000).clip(-32768, 32767),
        np.full(SHAPE, -32768),
    ],
)
def test_ordinary_values_are_none(image: Array) -> None:
    assert find_fill_values(image) == []


def test_a_few_voxels_are_outliers_not_the_outside() -> None:
    image = scan(shape=(30, 30, 30))
    image[3, 4, 5:7] = 12345
    assert find_fill_values(image) == []


@given(WIDTHS, st.sampled_from([0.0, 100.0, -1024.0]))
@settings(deadline=None)
def test_a_margin_is_left_out(widths: Any, value: float) -> None:
    image = np.pad(scan(), widths, constant_values=value)
    np.testing.assert_array_equal(image[find_content_box([image])], scan())


def test_a_margin_of_rounded_zeros_is_left_out_and_a_faint_one_is_not() -> None:
    margin = np.random.default_rng(0).integers(0, 2, (3, *SHAPE[1:])).astype(np.float64)
    image = np.concatenate([margin, 300 * scan()])
    np.testing.assert_array_equal(image[find_content_box([image])], 300 * scan())
    faint = np.concatenate([600 * margin, 300 * scan()])
    assert faint[find_content_box([faint])].shape == faint.shape


def test_margins_of_several_values_are_left_out() -> None:
    image = np.pad(np.pad(scan(), 2), ((1, 0), (0, 2), (1, 1)), constant_values=7)
    np.testing.assert_array_equal(image[find_content_box([image])], scan())


def test_a_margin_is_empty_in_every_channel() -> None:
    one, two = np.pad(scan(1), ((2, 0), (0, 0), (1, 1))), np.pad(scan(2), ((1, 1), (0, 0), (2, 0)))
    box = find_content_box([one, two])
    assert [(part.start, part.stop) for part in box] == [(1, 12), (0, 9), (1, 10)]


@pytest.mark.parametrize(
    "image", [np.zeros(SHAPE), np.arange(720).reshape(SHAPE) // 72, np.eye(9)[:, :, None] @ [[0]]]
)
def test_an_image_of_margins_alone_stays_whole(image: Array) -> None:
    assert image[find_content_box([image])].shape == image.shape
