"""Problems of one label: empty, stray islands, a structure that is cut off."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hsf_finetune.check.findings import EXCLUDE, Finding
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.labels.classes import LabelMap

Rows = npt.NDArray[np.uint8]
Box = tuple[slice, slice, slice]

_STRAY_SHARE = 0.03
"""An island with less than this share of the labelled voxels is no structure of its own."""
_STRAY_VOX = 3.0
"""An island nearer than this to the main body is part of its ragged end."""
_BORDER_SHARE = 0.03
"""Share of the labelled voxels that lie on one outermost slice of the volume."""
_FULL_SHARE = 0.9
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


def check_label(label: Volume, rows: Rows, protocol: LabelMap, case: str) -> Iterator[Finding]:
    """What is unusual about a label whose values are all known.

    Args:
        label: as stored.
        rows: its label rows, (X, Y, Z).
        protocol: what the rows mean.
        case: its name, for messages.
    """
    file = str(label.ref)
    if label.array.dtype.kind == "f":
        yield Finding(
            "repaired",
            "label/stored as float",
            "the label's whole numbers are stored as floating point; they are read as integers",
            file,
            case,
            f"{label.array.dtype}" + (f" in steps of {label.step:g}" if label.step else ""),
        )
    foreground = find_foreground(rows, protocol)
    box = bounding_box(foreground)
    if box is None:
        yield Finding(
            "warned",
            "label/empty",
            "nothing is drawn in the label",
            file,
            case,
            "no voxel of " + ", ".join(_foreground_names(protocol)),
            fix=f"nothing to do if the scan really lacks the structure; else draw it, or {EXCLUDE}",
        )
        return
    share = float(foreground.mean())
    if share > _FULL_SHARE:
        yield Finding(
            "warned",
            "label/full",
            "nearly the whole volume is labelled",
            file,
            case,
            f"{share:.0%} of the voxels",
            fix="check labels: in the dataset's YAML, where the background is 0",
        )
        return
    yield from _check_islands(foreground[box], file, case)
    yield from _check_border(foreground, file, case)


def find_foreground(rows: Rows, protocol: LabelMap) -> npt.NDArray[np.bool_]:
    """Voxels whose label excludes the background, (X, Y, Z)."""
    return np.asarray(protocol.foreground_rows[rows])


def bounding_box(foreground: npt.NDArray[np.bool_]) -> Box | None:
    """The smallest box around the foreground, (X, Y, Z); None where there is none."""
    found = ndimage.find_objects(foreground.view(np.uint8))
    return found[0] if found else None


# -------------------------------------------------------------------- internals
def _foreground_names(protocol: LabelMap) -> list[str]:
    names = zip(protocol.row_names, protocol.foreground_rows, strict=True)
    return [name for name, is_foreground in names if is_foreground]


def _check_islands(foreground: npt.NDArray[np.bool_], file: str, case: str) -> Iterator[Finding]:
    islands, count = ndimage.label(foreground, _TOUCHING)
    if count < 2:
        return
    sizes = np.bincount(islands.ravel())[1:]
    large = sizes >= _STRAY_SHARE * sizes.sum()
    if large.all():
        return
    body = np.concatenate([[False], large])[islands]
    gap = ndimage.distance_transform_edt(~body)
    numbers = [n + 1 for n in np.flatnonzero(~large)]
    gaps = ndimage.minimum(gap, islands, numbers)
    stray = [n for n, distance in zip(numbers, gaps, strict=True) if distance >= _STRAY_VOX]
    if stray:
        yield Finding(
            "warned",
            "label/stray voxels",
            "tiny islands are drawn far from the rest",
            file,
            case,
            f"{len(stray)} of {', '.join(str(sizes[n - 1]) for n in stray[:5])} voxels, up to "
            f"{max(gaps):.0f} voxels away",
            fix="erase them in your segmentation program, if they were drawn by mistake",
        )


def _check_border(foreground: npt.NDArray[np.bool_], file: str, case: str) -> Iterator[Finding]:
    faces = [np.take(foreground, end, axis=axis).sum() for axis in range(3) for end in (0, -1)]
    share = max(faces) / max(int(foreground.sum()), 1)
    if share > _BORDER_SHARE:
        axis = int(np.argmax(faces)) // 2
        yield Finding(
            "warned",
            "label/cut off",
            "the label ends at the border of the volume, so the structure is cut off",
            file,
            case,
            f"{share:.0%} of its voxels lie on the last slice along axis {axis}",
            fix="crop the scan with a margin around the structure",
        )
