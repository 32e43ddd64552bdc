"""Problems of one label: empty, stray islands, a structure that is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import compress

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hsf_finetune.check.findings import EXCLUDE, Finding, warn_about
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
    """What is unusual about a label whose values all have a row of the protocol, (X, Y, Z)."""
    warn = warn_about(label.ref, case)
    if label.array.dtype.kind == "f":
        yield Finding(
            "repaired",
            "label/stored as float",
            "the label's whole numbers are stored as floating point; they are read as integers",
            str(label.ref),
            case,
            f"{label.array.dtype}" + (f" in steps of {label.step:g}" if label.step else ""),
        )
    foreground = protocol.foreground_rows[rows]
    box = bounding_box(foreground)
    if box is None:
        names = compress(protocol.row_names, protocol.foreground_rows)
        yield warn(
            "label/empty",
            "nothing is drawn in the label",
            found="no voxel of " + ", ".join(names),
            fix=f"nothing to do if the scan really lacks the structure; else draw it, or {EXCLUDE}",
        )
        return
    share = float(foreground.mean())
    if share > _FULL_SHARE:
        yield warn(
            "label/full",
            "nearly the whole volume is labelled",
            found=f"{share:.0%} of the voxels",
            fix="check labels: in the dataset's YAML, where the background is 0",
        )
        return
    yield from _check_islands(foreground[box], warn)
    yield from _check_border(foreground, warn)


def bounding_box(foreground: npt.NDArray[np.bool_]) -> Box | None:
    """The smallest box around the foreground, (X, Y, Z); None where there is none."""
    found = ndimage.find_objects(foreground.view(np.uint8))
    return found[0] if found else None


def _check_islands(foreground: npt.NDArray[np.bool_], warn: partial[Finding]) -> Iterator[Finding]:
    islands, count = ndimage.label(foreground, _TOUCHING)
    if count < 2:
        return
    sizes = np.bincount(islands.ravel())[1:]
    large = sizes >= _STRAY_SHARE * sizes.sum()
    if large.all():
        return
    body = np.append(False, large)[islands]
    numbers = np.flatnonzero(~large) + 1
    gaps = np.asarray(ndimage.minimum(ndimage.distance_transform_edt(~body), islands, numbers))
    stray = numbers[gaps >= _STRAY_VOX]
    if len(stray):
        yield warn(
            "label/stray voxels",
            "tiny islands are drawn far from the rest",
            found=f"{len(stray)} of {', '.join(str(sizes[n - 1]) for n in stray[:5])} voxels, up to "
            f"{max(gaps):.0f} voxels away",
            fix="erase them in your segmentation program, if they were drawn by mistake",
        )


def _check_border(foreground: npt.NDArray[np.bool_], warn: partial[Finding]) -> Iterator[Finding]:
    faces = [np.take(foreground, end, axis=axis).sum() for axis in range(3) for end in (0, -1)]
    share = max(faces) / max(int(foreground.sum()), 1)
    if share > _BORDER_SHARE:
        axis = int(np.argmax(faces)) // 2
        yield warn(
            "label/cut off",
            "the label ends at the border of the volume, so the structure is cut off",
            found=f"{share:.0%} of its voxels lie on the last slice along axis {axis}",
            fix="crop the scan with a margin around the structure",
        )
