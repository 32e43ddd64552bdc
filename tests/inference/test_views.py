"""Several views of a scan: each shows what it says, and mirrored ones exchange the sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.inference.views import ViewKind, views_of
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.errors import ConfigError
from tests.conftest import oblique_affine, tiny_case
from tests.inference.test_predictor import card, predictor

SIDED = {"background": 0, "left_CA1": 1, "right_CA1": 2}
EXCHANGED = np.array([0, 2, 1])


def sided(**changes: Any) -> Any:
    return predictor(classes=tuple(SIDED), label_values=SIDED, **changes)


@pytest.mark.parametrize(("kind", "count"), [("off", 1), ("shift", 8), ("flip", 2), ("all", 16)])
def test_each_kind_has_its_views_and_the_first_is_the_scan_as_it_is(
    kind: ViewKind, count: int
) -> None:
    model = predictor(sides="mirrored").with_views(kind)
    image = (tiny_case(1)[0], oblique_affine())
    passes = list(model.predict_passes(model.read(image)))
    assert model.passes == len(passes) == count
    assert len({one.numpy().tobytes() for one in passes}) == count
    found = model.predict(image)
    np.testing.assert_array_equal(found.probabilities, sum(passes[1:], passes[0]) / count)
    np.testing.assert_array_equal(found.labels, 10 * found.probabilities.argmax(axis=0))
    np.testing.assert_array_equal(
        passes[0], predictor(sides="mirrored").predict(image).probabilities
    )


@pytest.mark.parametrize("padding", ["both", "symmetric", "end"])
@pytest.mark.parametrize("shape", [(8, 6, 5), (13, 8, 9)])
@pytest.mark.parametrize(
    "more", [{}, {"padded_size": "window", "window_vox": (16, 16, 16)}, {"multiple_vox": (6, 6, 6)}]
)
def test_a_shifted_view_lies_elsewhere_on_the_networks_grid(
    padding: Any, shape: tuple[int, int, int], more: dict[str, Any]
) -> None:
    def places(image: Tensor) -> Tensor:
        """The place of each voxel on the grid, of a network that halves it twice."""
        x = torch.arange(image.shape[2]).remainder(4).float()
        return x[None, None, :, None, None].expand(1, 1, *image.shape[2:])

    how = Preprocessing(**{"padding": padding, "window_vox": (64, 64, 64), **more})
    image = torch.zeros(1, 1, *shape)
    usual = volume_logits(places, image, (4, 4, 4), how)
    for shift in (1, 2, 3):
        moved = volume_logits(places, image, (4, 4, 4), how, (shift, 0, 0))
        assert moved.shape == usual.shape
        assert torch.equal(moved.round(), (usual + shift).remainder(4))


def test_mirrored_views_exchange_the_sides() -> None:
    image = tiny_case(1)[0]
    models = [sided(sides="mirrored", partners=partners) for partners in (None, (0, 2, 1))]
    for model in models:
        both = model.with_views("flip")
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        found = both.predict((image, affine)).labels
        assert len(np.unique(found)) > 1
        mirrored = both.predict((image[::-1].copy(), affine)).labels
        assert (mirrored[::-1] == EXCHANGED[found]).mean() > 0.99  # a tie has no mirror image
    assert views_of("flip", card(sides="mirrored"), (2, 2, 2))[1].partners is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"sides": "kept"}, "training mirrored no scan"),
        ({}, "do not say whether training mirrored"),
        (
            {"sides": "mirrored", "classes": tuple(v := {"background": 0, "left_CA1": 1})}
            | {"label_values": v},
            "left_CA1",
        ),
    ],
)
def test_scans_are_not_mirrored_where_that_cannot_be_meant(
    model: dict[str, Any], message: str
) -> None:
    made = predictor(**model)
    with pytest.raises(ConfigError, match=message):
        made.with_views("flip")
    assert made.with_views("shift").passes == 8
