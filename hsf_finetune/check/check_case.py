"""One case: its files are read once, checked, measured and released."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from scipy import ndimage

from hsf_finetune.check.case_facts import (
    EDGE_VOX,
    STEPS_PER_STD,
    CaseFacts,
    Measures,
    Thumbnail,
    Thumbnails,
    Triple,
)
from hsf_finetune.check.check_headers import (
    check_header,
    compare_affines,
    compare_axes,
    tilt_deg,
)
from hsf_finetune.check.check_intensities import check_intensities
from hsf_finetune.check.check_labels import Box, bounding_box, check_label
from hsf_finetune.check.findings import EXCLUDE, Finding, findings_of_tier
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.orientation import (
    axes_to,
    file_axes,
    orientation_name,
    turn,
    turned_affine,
)
from hsf_finetune.data.typical_scans import PIECES, largest_piece, measure_scan
from hsf_finetune.data.volumes.check_volumes import (
    check_image,
    check_same_grid,
    on_grid_of,
    to_label_rows,
)
from hsf_finetune.data.volumes.outside import fill_mask, fill_with_mean, find_fill_values
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.system.errors import DataError, UserError

Array = npt.NDArray[np.float32]
Ends = Sequence[tuple[float, float]]
"""Start and end of a cube along each axis, in voxels of the image."""

_RING_VOX = 3
_CROP_FACTOR = 1.6
"""Edge length of the crop around a label, in lengths of the label."""


def check_case(case: Case) -> CaseFacts:
    """Everything that a case's own files show.

    A file that cannot be used is refused; the other files of the case are still checked.
    """
    findings: list[Finding] = []
    images = [_read_image(ref, case.name, findings) for ref in case.images]
    label = _read(case.label, case.name, findings)
    first, rows = images[0], None
    for other in images[1:]:
        if first is not None and other is not None:
            with _refusing("geometry/grid", other.ref, case.name, findings):
                check_same_grid(first, other)
    if first is not None and label is not None:
        with _refusing("geometry/grid", label.ref, case.name, findings):
            stored, label = label, on_grid_of(first, label)
            findings += compare_axes(stored, label, case.name)
    if label is not None:
        with _refusing("label/values", label.ref, case.name, findings):
            rows = to_label_rows(label, case.protocol)
            findings += check_label(label, rows, case.protocol, case.name)
    if findings_of_tier(findings, "refused"):
        return CaseFacts(tuple(findings))
    assert first is not None
    assert label is not None
    assert rows is not None
    if np.array_equal(first.array, label.array):
        findings.append(
            Finding(
                "refused",
                "label/copy of image",
                "the image is a copy of its label, so the network would be given the answer",
                str(first.ref),
                case.name,
                f"the same voxels as {label.ref}",
                "a scan",
                "correct mri: in the dataset's YAML, or put the scan back",
            )
        )
    findings += compare_affines(first, label, case.name)
    channels = [image for image in images if image is not None]
    return _measure(channels, rows, case.protocol, findings)


@contextmanager
def _refusing(kind: str, ref: VolumeRef, case: str, findings: list[Finding]) -> Iterator[None]:
    """Turns an error into a refusal of the file."""
    try:
        yield
    except UserError as error:
        finding = Finding.refusal(error, kind, ref, case)
        if kind in ("file", "content") and finding.fix:
            # A line of code stays one that can be copied.
            joint = "\n" if "\n" in finding.fix else ", "
            finding = replace(finding, fix=f"{finding.fix}{joint}or {EXCLUDE}")
        findings.append(finding)


def _read(ref: VolumeRef, case: str, findings: list[Finding]) -> Volume | None:
    """The volume, with its header checked; None, and a refusal, where it cannot be read."""
    with _refusing("file", ref, case, findings):
        volume = read_volume(ref)
        if not np.linalg.matrix_rank(volume.affine[:3, :3]) == 3:
            raise DataError(
                "the affine does not span three dimensions",
                file=ref,
                found=volume.affine[:3, :3].tolist(),
                expected="three different axes, each longer than zero",
                fix="convert the volume again",
            )
        findings += check_header(volume, case)
        return volume
    return None


def _read_image(ref: VolumeRef, case: str, findings: list[Finding]) -> Volume | None:
    volume = _read(ref, case, findings)
    if volume is None:
        return None
    with _refusing("content", ref, case, findings):
        check_image(volume)
        findings += check_intensities(volume, case)
        return volume
    return None


def _measure(
    channels: list[Volume],
    stored_rows: npt.NDArray[np.uint8],
    protocol: LabelMap,
    findings: list[Finding],
) -> CaseFacts:
    """Measures and thumbnails of a case that can be used, along RAS+ axes."""
    first = channels[0]
    axes = axes_to(first.affine)
    affine = turned_affine(first.affine, axes, first.array.shape)
    fills = find_fill_values(first.array)
    counted = fill_with_mean(first.array, fill_mask(first.array, fills) if fills else None)
    image = np.asarray(turn(counted, axes), dtype=np.float32)
    std = max(float(image.std(dtype=np.float64)), 1e-12)
    image = (image - np.float32(image.mean(dtype=np.float64))) / np.float32(std)
    rows = np.ascontiguousarray(turn(stored_rows, axes))
    foreground = protocol.foreground_rows[rows]
    box = bounding_box(foreground)
    centre_vox = _centre_vox(foreground, box) if box is not None else None
    counts = np.bincount(rows.ravel(), minlength=len(protocol.row_sets))
    present = np.flatnonzero(counts).tolist()
    x_mm = {row: _to_mm(affine, _centre_vox(rows == row, box))[0] for row in present}
    means = np.asarray(ndimage.mean(image, rows, present), dtype=float).tolist()
    mean_of = dict(zip(present, means, strict=True))
    typical = {**measure_scan(first), PIECES.name: largest_piece(foreground)}
    measures = Measures(
        shape=(image.shape[0], image.shape[1], image.shape[2]),
        spacing_mm=_to_triple(np.array(first.spacing_mm)[file_axes(axes)]),
        orientation=orientation_name(first.affine),
        tilt_deg=tilt_deg(first.affine),
        image_hash=_hash([volume.array for volume in channels]),
        label_hash=_hash([stored_rows]) if box is not None else "",
        row_voxels=tuple(int(n) for n in counts),
        row_x_mm=tuple(x_mm.get(row) for row in range(len(counts))),
        row_mean=tuple(mean_of.get(row) for row in range(len(counts))),
        centre=_to_triple(centre_vox / image.shape) if centre_vox is not None else None,
        centre_mm=_to_mm(affine, centre_vox) if centre_vox is not None else None,
        contrast=_contrast(image, foreground, box) if box is not None else None,
        typical=typical,
    )
    return CaseFacts(tuple(findings), measures, _make_thumbnails(image, rows, box))


def _centre_vox(mask: npt.NDArray[np.bool_], box: Box | None) -> npt.NDArray[np.float64]:
    """Mean voxel position, (3,), of a mask (X, Y, Z); fast if all of it lies in the box."""
    if box is not None and mask[box].sum() == mask.sum():
        inside = np.array(ndimage.center_of_mass(mask[box]), dtype=np.float64)
        return np.asarray(inside + [part.start for part in box])
    return np.array(ndimage.center_of_mass(mask))


def _contrast(
    image: npt.NDArray[np.float32], foreground: npt.NDArray[np.bool_], box: Box
) -> float | None:
    """Mean of the foreground minus that of a ring around it, in standard deviations of the ring."""
    wide = tuple(slice(max(b.start - _RING_VOX, 0), b.stop + _RING_VOX) for b in box)
    inside, grey = foreground[wide], image[wide]
    ring = ndimage.binary_dilation(inside, iterations=_RING_VOX) & ~inside
    if ring.sum() < 2 or grey[ring].std() == 0:
        return None
    return float((grey[inside].mean() - grey[ring].mean()) / grey[ring].std())


def _to_mm(affine: npt.NDArray[np.float64], position_vox: npt.NDArray[np.float64]) -> Triple:
    return _to_triple(apply_affine(affine, position_vox))


def _to_triple(values: npt.NDArray[np.float64]) -> Triple:
    return (float(values[0]), float(values[1]), float(values[2]))


def _hash(arrays: list[npt.NDArray[np.generic]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        whole = np.ascontiguousarray(array, dtype=np.float32)
        digest.update(str(whole.shape).encode())
        digest.update(whole.data)
    return digest.hexdigest()


def _make_thumbnails(
    image: Array, rows: npt.NDArray[np.uint8], box: Sequence[slice] | None
) -> Thumbnails:
    """The thumbnails of a z-normalised image and its label rows, both (X, Y, Z) along RAS+ axes.

    The box lies around the foreground; it is None where the label is empty.
    """
    whole = _shrink(image, [(0.0, float(n)) for n in image.shape])
    if box is None:
        return Thumbnails(whole)
    ends = []
    for part in box:
        middle = (part.start + part.stop) / 2
        half = _CROP_FACTOR * (part.stop - part.start) / 2
        ends.append((middle - half, middle + half))
    crop_rows = ndimage.map_coordinates(rows, _grid(ends), order=0, mode="constant", cval=0)
    return Thumbnails(whole, _shrink(image, ends), crop_rows.astype(np.int8))


def _grid(ends: Ends) -> npt.NDArray[np.float64]:
    """Positions of a thumbnail's voxels in the image, (3, N, N, N)."""
    axes = [a + (np.arange(EDGE_VOX) + 0.5) * (b - a) / EDGE_VOX - 0.5 for a, b in ends]
    return np.array(np.meshgrid(*axes, indexing="ij"))


def _shrink(image: Array, ends: Ends) -> Thumbnail:
    """A part of the image as a thumbnail; each voxel is a mean over about its own size."""
    sizes = [max(round((b - a) / EDGE_VOX), 1) for a, b in ends]
    starts = [max(int(a) - n, 0) for (a, _), n in zip(ends, sizes, strict=True)]
    stops = [int(b) + n + 1 for (_, b), n in zip(ends, sizes, strict=True)]
    part = image[tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))]
    smooth = ndimage.uniform_filter(part, sizes)
    positions = _grid(ends) - np.array(starts).reshape(3, 1, 1, 1)
    cube = np.asarray(ndimage.map_coordinates(smooth, positions, order=1, mode="nearest"))
    normal = (cube - cube.mean()) / max(float(cube.std()), 1e-12)
    return np.asarray(np.clip(np.round(normal * STEPS_PER_STD), -127, 127), dtype=np.int8)
