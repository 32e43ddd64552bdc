"""Properties of the batched augmentation."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.augment.batch_augmentation import BatchAugmentation, change_batch
from hsf_finetune.data.augment.batch_changes import BatchChanges, draw_changes
from hsf_finetune.labels.classes import BACKGROUND_ROW
from tests.closeness import assert_equal_up_to_rounding

SHAPE = (20, 26, 18)
EVENTS = ("affine", "elastic", "gamma", "bias", "blur", "lowres", "noise")
INTENSITY = EVENTS[2:]
ALLOWED = torch.ones(4, 2, 3, dtype=torch.bool)
"""These tests flip no left and right classes; see test_flips."""
NOTHING = {f"{event}_p": 0.0 for event in ("flip", *EVENTS)}
EVERYTHING = {name: 1.0 for name in NOTHING}

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def only(*events: str, **strengths: float) -> AugmentationSettings:
    return AugmentationSettings(**{**NOTHING, **{f"{e}_p": 1.0 for e in events}, **strengths})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 2, channels: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    image = torch.randn(size, channels, *SHAPE, generator=generator)
    label = torch.randint(1, 4, (size, *SHAPE), generator=generator).to(torch.uint8)
    return image, label


def drawn(
    settings: AugmentationSettings, size: int = 2, channels: int = 1, seed: int = 0
) -> BatchChanges:
    return draw_changes(settings, size, channels, (0, 1, 2), seeded(seed))


def row(changes: BatchChanges, i: int) -> BatchChanges:
    values = {f.name: getattr(changes, f.name)[i : i + 1] for f in fields(changes)}
    return BatchChanges(**values)


def blob(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> Tensor:
    axes = torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")
    squared = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    return (squared <= radius**2).to(torch.uint8)


def centre_of_mass(mass: Tensor) -> Tensor:
    axes = torch.meshgrid(*[torch.arange(n) for n in mass.shape], indexing="ij")
    return torch.stack([(axis * mass).sum() / mass.sum() for axis in axes])


def sampling_scale(image: Tensor) -> float:
    """Positions are rounded like the extent; a value changes by up to its size per voxel."""
    return max(image.shape[2:]) * float(image.abs().max())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_batched_equals_one_by_one(seed: int, probability: float) -> None:
    image, label = batch(4, channels=2)
    settings = AugmentationSettings(**dict.fromkeys(NOTHING, probability))
    changes = drawn(settings, 4, 2, seed)
    together = change_batch(image, label, changes)
    for i in range(4):
        one = change_batch(image[i : i + 1], label[i : i + 1], row(changes, i))
        assert torch.equal(together[0][i], one[0][0])
        assert torch.equal(together[1][i], one[1][0])


def test_nothing_probable_is_the_identity() -> None:
    image, label = batch()
    after = BatchAugmentation(AugmentationSettings(**NOTHING), (0, 1, 2))(
        image, label, ALLOWED, seeded()
    )
    assert torch.equal(after[0], image)
    assert torch.equal(after[1], label)


def test_spatial_parameters_of_no_strength_resample_to_identical_tensors() -> None:
    image, label = batch(channels=2)
    still = dict.fromkeys(("rotation_deg", "scale", "translation_vox", "elastic_vox"), 0.0)
    after = change_batch(image, label, drawn(only("affine", "elastic", **still), channels=2))
    assert torch.equal(after[0], image)
    assert torch.equal(after[1], label)


def test_intensity_parameters_of_no_strength_leave_the_image() -> None:
    image, label = batch()
    still = dict.fromkeys(("gamma_log", "bias_log", "blur_vox", "noise_std"), 0.0)
    after, _ = change_batch(image, label, drawn(only(*INTENSITY, lowres_factor=1.0, **still)))
    assert_equal_up_to_rounding(after, image)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2)])
def test_a_flip_is_exact_and_twice_is_the_identity(axes: tuple[int, ...]) -> None:
    image, label = batch()
    changes = draw_changes(only("flip"), 2, 1, axes, seeded())
    once = change_batch(image, label, changes)
    assert torch.equal(once[0], image.flip([axis + 2 for axis in axes]))
    assert torch.equal(once[1], label.flip([axis + 1 for axis in axes]))
    twice = change_batch(*once, changes)
    assert torch.equal(twice[0], image)
    assert torch.equal(twice[1], label)


def test_no_axis_no_flip() -> None:
    assert not draw_changes(only("flip"), 64, 1, (), seeded()).flip.any()


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_of_a_cube_is_rot90(axis: int, plane: tuple[int, int]) -> None:
    generator = seeded()
    image = torch.randn(1, 1, 12, 12, 12, generator=generator)
    label = torch.randint(0, 5, (1, 12, 12, 12), generator=generator).to(torch.uint8)
    angles = torch.zeros(1, 3)
    angles[0, axis] = math.pi / 2
    changes = drawn(only("affine", scale=0.0, translation_vox=0.0), 1)
    after = change_batch(image, label, replace(changes, rotation_rad=angles))
    expected = torch.rot90(image, 1, [d + 2 for d in plane])
    assert_equal_up_to_rounding(after[0], expected, scale=sampling_scale(image))
    assert torch.equal(after[1], torch.rot90(label, 1, [d + 1 for d in plane]))


def test_rotations_follow_the_order_x_y_z() -> None:
    image, label = torch.randn(1, 1, 9, 9, 9), torch.ones(1, 9, 9, 9, dtype=torch.uint8)
    changes = drawn(only("affine", scale=0.0, translation_vox=0.0), 1)
    angles = torch.tensor([[math.pi / 2, math.pi / 2, math.pi / 2]])
    after, _ = change_batch(image, label, replace(changes, rotation_rad=angles))
    expected = image
    for plane in ((3, 4), (4, 2), (2, 3)):
        expected = torch.rot90(expected, 1, plane)
    assert_equal_up_to_rounding(after, expected, scale=sampling_scale(image))


def test_whole_voxel_shift_moves_contents_and_fills_from_outside() -> None:
    image, label = batch(1)
    changes = drawn(only("affine", scale=0.0, rotation_deg=0.0), 1)
    changes = replace(changes, translation_vox=torch.tensor([[3.0, 0.0, -2.0]]))
    after, rows = change_batch(image, label, changes)
    scale = sampling_scale(image)
    assert_equal_up_to_rounding(after[0, 0, 3:, :, :-2], image[0, 0, :-3, :, 2:], scale=scale)
    assert torch.equal(rows[0, 3:, :, :-2], label[0, :-3, :, 2:])
    assert (rows[0, :3] == BACKGROUND_ROW).all()
    assert (rows[0, :, :, -2:] == BACKGROUND_ROW).all()
    assert_equal_up_to_rounding(after[0, 0, 0, :, :-2], image[0, 0, 0, :, 2:], scale=scale)


def test_trilinear_agrees_with_torch() -> None:
    image, label = batch(1, channels=2)
    settings = only("affine", rotation_deg=30.0, scale=0.3)
    angles, zoom = torch.tensor([[0.3, 0.0, 0.0]]), torch.tensor([[1.2, 0.8, 1.1]])
    changes = replace(drawn(settings, 1, 2), rotation_rad=angles, zoom=zoom)
    after, _ = change_batch(image, label, changes)
    c, s = math.cos(0.3), math.sin(0.3)
    turn = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]])
    voxels = torch.stack(torch.meshgrid(*[torch.arange(n) for n in SHAPE], indexing="ij"), -1)
    half = (torch.tensor(SHAPE) - 1) / 2
    source = (voxels - half - changes.translation_vox[0]) @ turn / zoom[0]
    expected = torch.nn.functional.grid_sample(
        image, (source / half).flip(-1)[None], padding_mode="border", align_corners=True
    )
    assert_equal_up_to_rounding(after, expected, scale=sampling_scale(image))


def test_rotation_keeps_millimetres_where_voxels_are_anisotropic() -> None:
    shape, spacing = (41, 41, 17), torch.tensor([[1.0, 1.0, 3.0]])
    label = blob(shape, (32, 20, 8), 2)[None]
    changes = drawn(only("affine", scale=0.0, translation_vox=0.0), 1)
    quarter = torch.tensor([[0.0, math.pi / 2, 0.0]])
    changes = replace(changes, rotation_rad=quarter)
    _, rows = change_batch(label[:, None].float(), label, changes, spacing=spacing)
    moved = (centre_of_mass(rows[0]) - torch.tensor([20.0, 20.0, 8.0])) * spacing[0]
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, -12.0]), atol=0.8, rtol=0)


@pytest.mark.parametrize("seed", range(12))
def test_image_and_label_move_together(seed: int) -> None:
    shape = (40, 56, 40)
    label = blob(shape, (17, 32, 22), 6)[None]
    settings = only("flip", "affine", "elastic")
    changes = draw_changes(settings, 1, 1, (0, 1, 2), seeded(seed))
    image, rows = change_batch(label[:, None].float(), label, changes)
    distance = centre_of_mass(image[0, 0]) - centre_of_mass(rows[0])
    assert distance.abs().max() < 0.3
    unmoved = torch.tensor([17.0, 32.0, 22.0])
    assert (centre_of_mass(rows[0]) - unmoved).abs().max() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_label_values_are_those_of_the_input_or_background(seed: int) -> None:
    image, label = batch()
    _, rows = change_batch(image, label * 3, drawn(AugmentationSettings(**EVERYTHING), seed=seed))
    assert rows.dtype == torch.uint8
    assert set(rows.unique().tolist()) <= {0, 3, 6, 9}


def test_elastic_deformation_never_folds() -> None:
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE], indexing="ij")
    image = torch.stack(axes)[None]
    changes = drawn(only("elastic", elastic_vox=50.0), 1, 3, seed=3)
    positions, _ = change_batch(image, torch.zeros(1, *SHAPE, dtype=torch.uint8), changes)
    assert (positions - image).abs().max() > 0.5
    inner = positions[0][:, 4:-4, 4:-4, 4:-4]
    gradient = torch.stack(torch.gradient(inner, dim=(1, 2, 3)), -1).permute(1, 2, 3, 0, 4)
    assert (torch.linalg.det(gradient) > 0).all()


def test_same_seed_same_result() -> None:
    image, label = batch()
    augment = BatchAugmentation(AugmentationSettings(**EVERYTHING), (0,))
    first, again, other = (augment(image, label, ALLOWED, seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_input_and_global_random_state_stay_untouched() -> None:
    image, label = batch()
    before = image.clone(), label.clone(), torch.get_rng_state()
    BatchAugmentation(AugmentationSettings(**EVERYTHING), (0,))(image, label, ALLOWED, seeded())
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_draw_lies_on_the_cpu_and_depends_on_the_generator_alone() -> None:
    first = drawn(AugmentationSettings())
    assert all(getattr(first, f.name).device.type == "cpu" for f in fields(first))
    torch.manual_seed(123)
    again = drawn(AugmentationSettings())
    assert all(torch.equal(getattr(first, f.name), getattr(again, f.name)) for f in fields(first))


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu_but_for_noise() -> None:
    image, label = batch(channels=2)
    settings = AugmentationSettings(**{**EVERYTHING, "noise_p": 0.0})
    changes = drawn(settings, channels=2)
    on_cpu = change_batch(image, label, changes)
    on_gpu = change_batch(image.cuda(), label.cuda(), changes)
    assert_equal_up_to_rounding(on_gpu[0], on_cpu[0], scale=sampling_scale(image))
    assert (on_gpu[1].cpu() == on_cpu[1]).float().mean() > 0.999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_come_back_as_they_were(dtype: torch.dtype) -> None:
    image, label = batch()
    changes = drawn(AugmentationSettings(**EVERYTHING))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after, rows = change_batch(image.to(dtype), label, changes)
    assert after.dtype == dtype
    expected, expected_rows = change_batch(image.to(dtype).float(), label, changes)
    assert torch.equal(after, expected.to(dtype))
    assert torch.equal(rows, expected_rows)


def test_memory_format_does_not_matter() -> None:
    image, label = batch(channels=2)
    changes = drawn(AugmentationSettings(**EVERYTHING), channels=2)
    strided = image.contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(
        change_batch(strided, label, changes)[0], change_batch(image, label, changes)[0]
    )


@pytest.mark.parametrize("shape", [(1, 7, 5), (6, 1, 9), (2, 2, 1)])
def test_thin_volumes(shape: tuple[int, int, int]) -> None:
    image, label = torch.randn(1, 1, *shape), torch.ones(1, *shape, dtype=torch.uint8)
    after, rows = change_batch(image, label, drawn(AugmentationSettings(**EVERYTHING), 1))
    assert after.shape == image.shape
    assert rows.shape == label.shape
    assert torch.isfinite(after).all()


def test_events_have_their_probabilities() -> None:
    settings = AugmentationSettings()
    changes = drawn(settings, 4000)
    for event in EVENTS:
        share = getattr(changes, event).float().mean().item()
        assert share == pytest.approx(getattr(settings, f"{event}_p"), abs=0.03)
    flips = changes.flip.float().mean(0)
    torch.testing.assert_close(flips, torch.full((3,), settings.flip_p), atol=0.03, rtol=0)
