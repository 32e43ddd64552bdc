"""One case: its files are read once, looked at, measured, and let go."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation
from scipy import ndimage

from hsf_finetune.check.check_headers import header_findings, pair_findings, tilt_deg
from hsf_finetune.check.check_intensities import image_findings
from hsf_finetune.check.check_labels import annotation_findings, bounding_box, drawn_voxels
from hsf_finetune.check.facts import Facts, Measured
from hsf_finetune.check.findings import Finding
from hsf_finetune.check.thumbnails import portrait_of
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.checks import check_image, check_same_grid, label_rows
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.system.errors import DataError, UserError

_RING_VOX = 3


def examine(case: Case) -> Facts:
    """Everything that a case's own files show.

    A file that cannot be used is refused, with the rest of the case still looked at.
    """
    findings: list[Finding] = []
    images = [_image(ref, case.name, findings) for ref in case.images]
    label = _read(case.label, case.name, findings)
    first = images[0]
    for other in (*images[1:], label):
        if first is not None and other is not None:
            _same_grid(first, other, case.name, findings)
    rows = _rows(label, case.protocol, case.name, findings) if label is not None else None
    if any(finding.tier == "refused" for finding in findings):
        return Facts(tuple(findings))
    assert first is not None
    assert label is not None
    assert rows is not None
    _same_content(first, label, case.name, findings)
    findings += pair_findings(first, label, case.name)
    volumes = [image for image in images if image is not None]
    return _measured(volumes, label, rows, case.protocol, findings)


def scan_findings(scan: Volume) -> list[Finding]:
    """What is odd about a scan without a label that could be read."""
    return [*header_findings(scan, ""), *image_findings(scan, "")]


def _image(ref: VolumeRef, case: str, findings: list[Finding]) -> Volume | None:
    volume = _read(ref, case, findings)
    if volume is None:
        return None
    try:
        check_image(volume)
    except DataError as error:
        findings.append(Finding.refusal(error, "content", ref, case))
        return None
    findings += image_findings(volume, case)
    return volume


def _read(ref: VolumeRef, case: str, findings: list[Finding]) -> Volume | None:
    """The volume, its header looked at; None, and a refusal, where it cannot be read."""
    try:
        volume = read_volume(ref)
        if not np.linalg.matrix_rank(volume.affine[:3, :3]) == 3:
            raise DataError(
                "the affine does not span three dimensions",
                file=ref,
                found=volume.affine[:3, :3].tolist(),
                expected="three axes of their own, each with a length",
                fix="convert the volume again, or list it under the dataset's exclude:",
            )
    except UserError as error:
        findings.append(Finding.refusal(error, "file", ref, case))
        return None
    findings += header_findings(volume, case)
    return volume


def _same_grid(first: Volume, other: Volume, case: str, findings: list[Finding]) -> None:
    try:
        check_same_grid(first, other)
    except DataError as error:
        findings.append(Finding.refusal(error, "geometry/grid", other.ref, case))


def _rows(
    label: Volume, protocol: LabelMap, case: str, findings: list[Finding]
) -> npt.NDArray[np.uint8] | None:
    try:
        rows = label_rows(label, protocol)
    except DataError as error:
        findings.append(Finding.refusal(error, "label/values", label.ref, case))
        return None
    findings += annotation_findings(label, rows, protocol, case)
    return rows


def _same_content(image: Volume, label: Volume, case: str, findings: list[Finding]) -> None:
    if np.array_equal(image.array, label.array):
        findings.append(
            Finding(
                "refused",
                "label/copy of image",
                "the image is a copy of its label, so the answer is in the question",
                str(image.ref),
                case,
                f"the same voxels as {label.ref}",
                "a scan",
                "correct mri: in the dataset's YAML, or put the scan back",
            )
        )


def _measured(
    images: list[Volume],
    label: Volume,
    raw_rows: npt.NDArray[np.uint8],
    protocol: LabelMap,
    findings: list[Finding],
) -> Facts:
    """The measures and pictures of a sound case."""
    first = images[0]
    axes = io_orientation(first.affine)
    image = np.asarray(apply_orientation(first.array, axes), dtype=np.float32)
    rows = np.ascontiguousarray(apply_orientation(raw_rows, axes))
    spread = max(float(image.std(dtype=np.float64)), 1e-12)
    image = (image - np.float32(image.mean(dtype=np.float64))) / np.float32(spread)
    drawn = drawn_voxels(rows, protocol)
    box = bounding_box(drawn)
    order = np.argsort(axes[:, 0])
    canonical = first.affine @ nib.orientations.inv_ornt_aff(axes, first.array.shape)
    every = range(len(protocol.row_sets))
    counts = np.bincount(rows.ravel(), minlength=len(every))
    there = np.flatnonzero(counts)
    means = ndimage.mean(image, rows, there)
    places = [nib.affines.apply_affine(canonical, centre(rows == row, box)) for row in there]
    middle = centre(drawn, box) if box is not None else None
    x, y, z = (int(n) for n in image.shape)
    sizes = [first.spacing_mm[n] for n in order]
    measured = Measured(
        shape=(x, y, z),
        spacing_mm=(sizes[0], sizes[1], sizes[2]),
        orientation="".join(nib.aff2axcodes(first.affine)),
        tilt_deg=tilt_deg(first.affine),
        image_hash=_hash([volume.array for volume in images]),
        label_hash=_hash([raw_rows]) if box is not None else "",
        row_voxels=tuple(int(n) for n in counts),
        row_x_mm=_by_row(every, there, [place[0] for place in places]),
        row_mean=_by_row(every, there, means),
        centre=_triple(middle / image.shape) if middle is not None else None,
        centre_mm=_triple(nib.affines.apply_affine(canonical, middle))
        if middle is not None
        else None,
        contrast=_contrast(image, drawn, box) if box is not None else None,
    )
    return Facts(tuple(findings), measured, portrait_of(image, rows, box))


def centre(mask: npt.NDArray[np.bool_], box: tuple[slice, ...] | None) -> npt.NDArray[np.float64]:
    """Mean voxel position of a mask, (3,); the box holds everything but the background."""
    if box is not None and mask[box].sum() == mask.sum():
        inside = np.array(ndimage.center_of_mass(mask[box]), dtype=np.float64)
        return np.asarray(inside + [part.start for part in box])
    return np.array(ndimage.center_of_mass(mask))


def _contrast(
    image: npt.NDArray[np.float32], drawn: npt.NDArray[np.bool_], box: tuple[slice, ...]
) -> float | None:
    """What is drawn less a ring around it, in standard deviations of the ring."""
    wide = tuple(slice(max(b.start - _RING_VOX, 0), b.stop + _RING_VOX) for b in box)
    inside, grey = drawn[wide], image[wide]
    ring = ndimage.binary_dilation(inside, iterations=_RING_VOX) & ~inside
    if ring.sum() < 2 or grey[ring].std() == 0:
        return None
    return float((grey[inside].mean() - grey[ring].mean()) / grey[ring].std())


def _by_row(every: range, there: npt.NDArray[np.intp], values: object) -> tuple[float | None, ...]:
    known = dict(zip((int(row) for row in there), np.asarray(values, dtype=float), strict=True))
    return tuple(float(known[row]) if row in known else None for row in every)


def _hash(arrays: list[npt.NDArray[np.generic]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        whole = np.ascontiguousarray(array, dtype=np.float32)
        digest.update(str(whole.shape).encode())
        digest.update(whole.data)
    return digest.hexdigest()


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))
