"""Random changes of a training batch, computed on the device that trains.

Parameters are drawn on the CPU, apart from applying them, so that a batch can be
repeated bit for bit. Every sample goes only through what was drawn for it: flips are
exact, affine and elastic deformation share one resampling, gamma and bias field share
one exponential, blur and low resolution share one separable product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hsf_finetune.settings import AugmentationSettings

BIAS_POINTS = 4
INJECTIVE = 2.48
"""Control points of a cubic B-spline that move less than their spacing over 2.48 cannot
fold space (Choi & Lee, Graphical Models 62, 2000)."""
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Parameters:
    """What happens to each of B samples with C channels; every tensor lies on the CPU.

    The masks of shape (B,) say which samples a change concerns; the other fields hold
    values for all of them. Axes are X, Y, Z; P is the number of control points.

    Args:
        flip: (B, 3) bool, axes to reverse.
        affine: (B,) bool.
        rotation_rad: (B, 3) angles about the axes, applied X first, then Y, then Z.
        zoom: (B, 3) magnification along the axes, before the rotation.
        translation_vox: (B, 3) shift of the contents, last.
        elastic: (B,) bool.
        control_vox: (B, 3, P, P, P) displacement of the B-spline's control points.
        gamma: (B,) bool.
        exponent: (B, C) powers of the intensities.
        bias: (B,) bool.
        log_gain: (B, C, 4, 4, 4) logarithm of the gain at the B-spline's control points.
        blur: (B,) bool.
        sigma_vox: (B, C, 3) standard deviations of the Gaussian.
        lowres: (B,) bool.
        factor: (B, C, 3) how many voxels become one.
        noise: (B,) bool.
        noise_std: (B, C) in units of the z-normalised image.
        noise_seed: (B,) int64.
    """

    flip: Tensor
    affine: Tensor
    rotation_rad: Tensor
    zoom: Tensor
    translation_vox: Tensor
    elastic: Tensor
    control_vox: Tensor
    gamma: Tensor
    exponent: Tensor
    bias: Tensor
    log_gain: Tensor
    blur: Tensor
    sigma_vox: Tensor
    lowres: Tensor
    factor: Tensor
    noise: Tensor
    noise_std: Tensor
    noise_seed: Tensor


def draw(
    settings: AugmentationSettings,
    batch_size: int,
    channels: int,
    flip_axes: Sequence[int],
    generator: torch.Generator,
) -> Parameters:
    """Draws the parameters of a batch.

    One number decides on both affine and elastic deformation, and one on both gamma and
    bias field: each keeps its own probability, but they fall on the same samples, which
    pay once for what the two share. Magnitudes are uniform between nothing and the
    setting; zoom and gamma are uniform in the logarithm. The same count of numbers is
    drawn whatever the probabilities.

    Args:
        settings: probabilities and magnitudes; `pipeline` and `flip` are the caller's to
            heed.
        batch_size: B.
        channels: C; each has its own intensity parameters.
        flip_axes: axes (0, 1, 2) that may be reversed; empty forbids flips.
        generator: on the CPU, so that the device does not change the draw.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(batch_size, *shape).uniform_(low, high, generator=generator)

    s, points = settings, settings.elastic_points
    allowed = torch.tensor([axis in flip_axes for axis in range(3)])
    where, tone, *rest = torch.rand(8, batch_size, generator=generator)
    angle, zoom = math.radians(s.rotation_deg), math.log1p(s.scale)
    return Parameters(
        flip=(torch.stack(rest[3:], 1) < s.flip_p) & allowed,
        affine=where < s.affine_p,
        rotation_rad=uniform(-angle, angle, 3),
        zoom=uniform(-zoom, zoom, 3).exp(),
        translation_vox=uniform(-s.translation_vox, s.translation_vox, 3),
        elastic=where < s.elastic_p,
        control_vox=uniform(-s.elastic_vox, s.elastic_vox, 3, points, points, points),
        gamma=tone < s.gamma_p,
        exponent=uniform(-s.gamma_log, s.gamma_log, channels).exp(),
        bias=tone < s.bias_p,
        log_gain=uniform(-s.bias_log, s.bias_log, channels, *[BIAS_POINTS] * 3),
        blur=rest[0] < s.blur_p,
        sigma_vox=uniform(0, s.blur_vox, channels, 3),
        lowres=rest[1] < s.lowres_p,
        factor=uniform(1, s.lowres_factor, channels, 3),
        noise=rest[2] < s.noise_p,
        noise_std=uniform(0, s.noise_std, channels),
        noise_seed=torch.randint(2**62, (batch_size,), generator=generator),
    )


def apply(
    image: Tensor,
    label: Tensor,
    parameters: Parameters,
    *,
    spacing: Tensor | None = None,
    background_row: int = 0,
) -> tuple[Tensor, Tensor]:
    """Applies drawn parameters; the same parameters give the same result on a device.

    What comes from outside the volume is the nearest border voxel in the image and the
    background in the label. Computed in float32, whatever autocast says.

    Args:
        image: (B, C, X, Y, Z) floating point, z-normalised.
        label: (B, X, Y, Z) uint8 label rows, on the image's device.
        parameters: of B samples with C channels.
        spacing: (B, 3) voxel size along X, Y, Z on the CPU, so that anisotropic volumes
            rotate without shear; None is isotropic.
        background_row: label row of voxels from outside the volume.

    Returns:
        New image and label of the same shapes and dtypes.
    """
    images, labels = [], []
    with torch.autocast(image.device.type, enabled=False):
        for i, (one, rows) in enumerate(zip(image.unbind(), label.unbind(), strict=True)):
            edges = torch.ones(3) if spacing is None else spacing[i]
            one, rows = _spatial(one, rows, parameters, i, edges, background_row)
            images.append(_intensity(one, parameters, i).to(image.dtype))
            labels.append(rows)
        return torch.stack(images), torch.stack(labels)


@dataclass(frozen=True)
class BatchAugmentation:
    """Draws and applies in one call.

    Args:
        settings: probabilities and magnitudes.
        flip_axes: axes (0, 1, 2) that may be reversed.
        background_row: label row of voxels from outside the volume.
    """

    settings: AugmentationSettings
    flip_axes: tuple[int, ...] = ()
    background_row: int = 0

    def __call__(
        self,
        image: Tensor,
        label: Tensor,
        generator: torch.Generator,
        spacing: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Augments a batch; shapes as in `apply`, generator as in `draw`."""
        parameters = draw(self.settings, image.shape[0], image.shape[1], self.flip_axes, generator)
        return apply(image, label, parameters, spacing=spacing, background_row=self.background_row)


# ---------------------------------------------------------------------- geometry
def _spatial(
    image: Tensor, label: Tensor, p: Parameters, i: int, edges: Tensor, background_row: int
) -> tuple[Tensor, Tensor]:
    axes = [axis for axis, flipped in enumerate(p.flip[i].tolist()) if flipped]
    if axes:
        image = image.flip([axis + 1 for axis in axes])
        label = label.flip(axes)
    if not (p.affine[i] or p.elastic[i]):
        return image, label
    positions = _positions(label, p, i, edges)
    rows = _nearest(label, positions, background_row)
    return _trilinear_(image.float(), positions), rows


def _positions(label: Tensor, p: Parameters, i: int, edges: Tensor) -> list[Tensor]:
    """Where each output voxel looks, one (X, Y, Z) tensor of voxel coordinates per axis."""
    shape = label.shape
    matrix, offset = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    if p.affine[i]:
        matrix = _output_to_input(p.rotation_rad[i], p.zoom[i], edges)
        centre = (torch.tensor(shape, dtype=torch.float64) - 1) / 2
        offset = centre - matrix @ (centre + p.translation_vox[i])
    x, y, z = (torch.arange(n, device=label.device, dtype=torch.float32) for n in shape)
    positions = [
        (a * x)[:, None, None] + ((b * y)[:, None] + (c * z + d))
        for (a, b, c), d in zip(matrix.tolist(), offset.tolist(), strict=True)
    ]
    if p.elastic[i]:
        # Only the displacement goes through a matrix product: in TF32 it would cost the
        # coordinates themselves whole tenths of a voxel.
        control = p.control_vox[i]
        cells = control.shape[-1] - 3
        limit = (torch.tensor(shape) - 1) / cells / INJECTIVE
        control = control.clamp(-limit.view(3, 1, 1, 1), limit.view(3, 1, 1, 1))
        for position, shift in zip(
            positions, _smooth_field(control.to(label.device), shape), strict=True
        ):
            position += shift
    return positions


def _output_to_input(rotation_rad: Tensor, zoom: Tensor, edges: Tensor) -> Tensor:
    """(3, 3) float64 matrix from output to input voxels: the inverse of zoom and rotation."""
    x, y, z = rotation_rad.tolist()
    about_x = _rotation([1, 0, 0, 0, math.cos(x), -math.sin(x), 0, math.sin(x), math.cos(x)])
    about_y = _rotation([math.cos(y), 0, math.sin(y), 0, 1, 0, -math.sin(y), 0, math.cos(y)])
    about_z = _rotation([math.cos(z), -math.sin(z), 0, math.sin(z), math.cos(z), 0, 0, 0, 1])
    # The inverse of a rotation is its transpose; in voxels it acts between the edges.
    inverse = (about_z @ about_y @ about_x).T * edges.double()
    return inverse / (edges * zoom).double()[:, None]


def _rotation(entries: list[float]) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64).view(3, 3)


def _trilinear_(volume: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Samples (C, X, Y, Z) at positions, border values outside; half grid_sample's time.

    The positions are overwritten, which keeps the working set near the cache's size.
    """
    shape = volume.shape[1:]
    inside = [p.clamp_(0, n - 1).view(-1) for p, n in zip(positions, shape, strict=True)]
    x, y, z = (position.int() for position in inside)
    base = x.mul_(shape[1]).add_(y).mul_(shape[2]).add_(z)
    dx, dy, dz = shape[1] * shape[2], shape[2], 1
    wx, wy, wz = (position.frac_() for position in inside)

    def along_z(flat: Tensor, start: int) -> Tensor:
        near = flat[start:].index_select(0, base)
        return near.lerp_(flat[start + dz :].index_select(0, base), wz)

    sampled = volume.new_empty(volume.shape)
    # On the far border the second neighbour has weight 0: any finite value will do, but
    # the last voxel needs one to read.
    readable = torch.cat([volume.flatten(1), volume.new_zeros(len(volume), dx + dy + dz)], 1)
    for flat, out in zip(readable, sampled, strict=True):
        front = along_z(flat, 0).lerp_(along_z(flat, dy), wy)
        back = along_z(flat, dx).lerp_(along_z(flat, dx + dy), wy)
        torch.lerp(front, back, wx, out=out.view(-1))
    return sampled


def _nearest(label: Tensor, positions: Sequence[Tensor], background_row: int) -> Tensor:
    """Samples (X, Y, Z) uint8 at positions; a rim of background stands for the outside."""
    rim = torch.nn.functional.pad(label, (1,) * 6, value=background_row)
    # Truncation rounds down here, since the rim makes every coordinate positive.
    x, y, z = (
        position.add(1.5).clamp_(0, n + 1.5).int()
        for position, n in zip(positions, label.shape, strict=True)
    )
    index = x.mul_(rim.shape[1]).add_(y).mul_(rim.shape[2]).add_(z)
    return rim.flatten().index_select(0, index.flatten()).view(label.shape)


# --------------------------------------------------------------------- intensity
def _intensity(image: Tensor, p: Parameters, i: int) -> Tensor:
    if p.gamma[i] or p.bias[i]:
        image = _contrast(image.float(), p, i)
    if p.blur[i] or p.lowres[i]:
        image = _separable(image.float(), _resolution(image.shape[1:], p, i))
    if p.noise[i]:
        generator = torch.Generator(image.device).manual_seed(int(p.noise_seed[i]))
        noise = torch.empty(image.shape, device=image.device).normal_(generator=generator)
        std = p.noise_std[i].to(image.device).view(-1, 1, 1, 1)
        image = noise.mul_(std).add_(image)
    return image


def _contrast(image: Tensor, p: Parameters, i: int) -> Tensor:
    """Power and gain of the intensities above the minimum; mean and deviation stay."""
    axes = (1, 2, 3)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    share = image.sub(low).div_((high - low).clamp_min(TINY))
    log = share.clamp_min_(1e-6).log_()
    if p.gamma[i]:
        log *= p.exponent[i].to(image.device).view(-1, 1, 1, 1)
    if p.bias[i]:
        log += _smooth_field(p.log_gain[i].to(image.device), image.shape[1:])
    changed = log.exp_()
    _, before = _deviation(image)
    centred, after = _deviation(changed)
    mean = image.mean(axes, keepdim=True)
    return centred.mul_(before / after.clamp_min(TINY)).add_(mean)


def _deviation(image: Tensor) -> tuple[Tensor, Tensor]:
    """Image less its mean, and its standard deviation as (C, 1, 1, 1)."""
    centred = image - image.mean((1, 2, 3), keepdim=True)
    norm = torch.linalg.vector_norm(centred.flatten(1), dim=1).view(-1, 1, 1, 1)
    return centred, norm / math.sqrt(image[0].numel())


def _resolution(shape: torch.Size, p: Parameters, i: int) -> list[Tensor]:
    """Per axis the (C, n, n) matrix that blurs, then averages and interpolates voxels."""
    matrices = []
    for axis, n in enumerate(shape):
        matrix = torch.eye(n)[None]
        if p.blur[i]:
            matrix = torch.stack([_gaussian(n, s) for s in p.sigma_vox[i, :, axis].tolist()])
        if p.lowres[i]:
            matrix = (
                torch.stack([_coarse(n, round(n / f)) for f in p.factor[i, :, axis].tolist()])
                @ matrix
            )
        matrices.append(matrix)
    return matrices


def _gaussian(n: int, sigma_vox: float) -> Tensor:
    """(n, n) Gaussian smoothing, its weights renormalised at the borders."""
    if sigma_vox == 0:
        return torch.eye(n)
    index = torch.arange(n) / sigma_vox
    # Smaller weights would only be denormal numbers, which are slow.
    weights = (index[:, None] - index).square_().mul_(-0.5).clamp_min_(-20).exp_()
    return weights.div_(weights.sum(1, keepdim=True))


@lru_cache(maxsize=1024)
def _coarse(n: int, cells: int) -> Tensor:
    """(n, n) averages over a number of cells, interpolated linearly back to n voxels."""
    if cells == n:
        return torch.eye(n)
    ratio = cells / n
    start, cell = torch.arange(n) * ratio, torch.arange(cells)[:, None]
    overlap = torch.minimum(start + ratio, cell + 1) - torch.maximum(start, cell)
    centre = (start + (ratio - 1) / 2).clamp(0, cells - 1)
    linear = (1 - (centre[:, None] - torch.arange(cells)).abs()).clamp_min(0)
    return linear @ overlap.clamp_min(0)


# ------------------------------------------------------------------ smooth fields
def _smooth_field(control: Tensor, shape: Sequence[int]) -> Tensor:
    """(C, X, Y, Z) cubic B-spline over (C, P, P, P) control points that span the volume."""
    return _separable(control, [_spline(n, control.shape[-1])[None] for n in shape])


@lru_cache(maxsize=64)
def _spline(n: int, points: int) -> Tensor:
    """(n, points) weights of uniform cubic B-splines with points - 3 cells over n voxels."""
    position = torch.linspace(0, points - 3, n)[:, None]
    distance = (position - (torch.arange(points) - 1)).abs()
    return ((2 - distance).clamp(0) ** 3 - 4 * (1 - distance).clamp(0) ** 3) / 6


def _separable(volume: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiplies each axis of (C, k, l, m) by its (C or 1, n, k|l|m) matrix."""
    for matrix in matrices:
        # The axis at the front is contracted and joins at the back: after three turns
        # the order is the original one.
        rest = volume.shape[2:]
        turned = volume.flatten(2).mT @ matrix.to(volume.device, non_blocking=True).mT
        volume = turned.view(len(turned), *rest, -1)
    return volume
