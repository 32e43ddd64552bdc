"""Cases of a report as one looks at them: image, label and segmentation."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw
from scipy.ndimage import find_objects
from torch import Tensor

from hsf_finetune.check.case_pictures import PLANE_ENDS, PLANES
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.orientation import axes_to, turn, turned_affine
from hsf_finetune.data.volumes.affines import Affine, voxel_size_mm
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_label_rows
from hsf_finetune.data.volumes.read_volume import Volume, read_volume
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.report.figures import colours_of
from hsf_finetune.report.page import CaseView
from hsf_finetune.training.validation_dice import set_masks

Bytes = npt.NDArray[np.uint8]
MOST_VOXELS = 4_000_000
"""Of a larger scan only the surroundings of what is segmented are shown."""
_MARGIN_VOX = 24
_TILE = 200


def view_case(model: ScanModel, case: Case, rows: Sequence[ScoreRow]) -> CaseView:
    """Segments a case and makes it ready to be looked at, along RAS+ axes.

    Args:
        model: which segments it.
        case: with its label.
        rows: its scores.

    Raises:
        DataError: it can no longer be read.
    """
    probabilities, scan = model.predict_probabilities(case.images)
    names, label, segmentation = _paint(case, scan, probabilities)
    scores = ", ".join(f"{one.score.class_name} {one.score.dice:.3f}" for one in rows)
    drawn = {"label": label, "segmentation": segmentation}
    colours = colours_of(names, model.card)
    return _view(case.name, f"Dice: {scores}", scan, drawn, colours)


def view_segmentation(
    name: str, about: str, scan: Volume, labels: Volume, card: ModelCard
) -> CaseView:
    """Makes a scan and its segmentation ready to be looked at, along RAS+ axes.

    Args:
        name: of the scan.
        about: what is known of the segmentation, in a line.
        scan: its first channel.
        labels: the segmentation, with the label values of the card.
        card: of the model.
    """
    names = card.classes[1:]
    drawn = np.zeros(labels.array.shape, np.uint8)
    for number, one in enumerate(names, start=1):
        drawn[labels.array == card.label_values[one]] = number
    return _view(name, about, scan, {"segmentation": drawn}, colours_of(names, card))


def _view(
    name: str, about: str, scan: Volume, drawn: Mapping[str, Bytes], colours: Mapping[str, str]
) -> CaseView:
    """A view of volumes that number the classes, in the order of their colours, from 1."""
    axes = axes_to(scan.affine)
    affine = turned_affine(scan.affine, axes, scan.array.shape[:3])
    whole = {
        kind: np.ascontiguousarray(turn(array, axes))
        for kind, array in {"image": _to_grey(scan.array), **drawn}.items()
    }
    box = _surroundings(np.any([whole[kind] > 0 for kind in drawn], axis=0))
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    arrays = {kind: array[box] for kind, array in whole.items()}
    first = next((kind for kind in drawn if arrays[kind].any()), "segmentation")
    centre = _centre(arrays[first] > 0)
    return CaseView(
        name=name,
        scores=about,
        picture=_draw(arrays, voxel_size_mm(affine), centre, [*colours.values()]),
        volumes={kind: _to_nifti(array, affine) for kind, array in arrays.items()},
        centre=[(at + 0.5) / n for at, n in zip(centre, arrays[first].shape, strict=True)],
        names=[*colours],
        colours=[*colours.values()],
    )


def _paint(case: Case, scan: Volume, probabilities: Tensor) -> tuple[list[str], Bytes, Bytes]:
    """Names of what the case's protocol draws; label and segmentation, numbered in their order."""
    truth = on_grid_of(scan, read_volume(case.label))
    rows = torch.from_numpy(to_label_rows(truth, case.protocol))
    allowed = torch.from_numpy(case.protocol.matrix)
    found = list(set_masks(probabilities, rows, allowed))
    label, segmentation = (np.zeros(rows.shape, np.uint8) for _ in range(2))
    # Sets first, so that the classes in them are drawn over them.
    order = sorted(range(len(found)), key=lambda k: -int(allowed[found[k][0]].sum()))
    for number in order:
        _, predicted, true = found[number]
        label[true.numpy()] = segmentation[predicted.numpy()] = 0
        label[true.numpy()] = number + 1
        segmentation[predicted.numpy()] = number + 1
    return [case.protocol.row_names[row] for row, _, _ in found], label, segmentation


def _to_grey(image: npt.NDArray[Any]) -> Bytes:
    """Grey values from the 0.5th to the 99.5th percentile, in 8 bits."""
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    grey: Bytes = np.rint(255 * scaled).astype(np.uint8)
    return grey


def _surroundings(segmented: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The whole volume, or what lies around the segmented part of a large one."""
    parts = [slice(0, n) for n in segmented.shape]
    found = find_objects(segmented.astype(np.int8))
    if segmented.size > MOST_VOXELS and found:
        parts = [
            slice(max(part.start - _MARGIN_VOX, 0), min(part.stop + _MARGIN_VOX, n))
            for part, n in zip(found[0], segmented.shape, strict=True)
        ]
    return (parts[0], parts[1], parts[2])


def _centre(segmented: npt.NDArray[np.bool_]) -> list[int]:
    """Along each axis the plane with the largest part of what is segmented."""
    return [
        int(segmented.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
        if segmented.any()
        else n // 2
        for axis, n in enumerate(segmented.shape)
    ]


def _draw(
    arrays: Mapping[str, Bytes],
    spacing_mm: Sequence[float],
    centre: Sequence[int],
    colours: Sequence[str],
) -> str:
    """Image, label and segmentation (across) in three planes (down), as PNG in base64."""
    table = np.array([(0, 0, 0, 0), *((*to_rgb(colour), 0.6) for colour in colours)])
    picture = Image.new("RGB", (3 * _TILE, 3 * _TILE))
    pen = ImageDraw.Draw(picture)
    for column, name in enumerate(arrays):
        for row, plane in enumerate(PLANES):
            grey, drawn = (
                np.flipud(arrays[one].take(centre[row], axis=row).T) for one in ("image", name)
            )
            paint = table[drawn] if name != "image" else np.zeros((*grey.shape, 4))
            mixed = 255 * paint[..., :3] * paint[..., 3:] + grey[..., None] * (1 - paint[..., 3:])
            tile = Image.fromarray(mixed.astype(np.uint8))
            across, up = np.delete(spacing_mm, row) * (tile.width, tile.height)
            scale = min((_TILE - 4) / across, (_TILE - 16) / up)
            size = (max(round(scale * across), 1), max(round(scale * up), 1))
            tile = tile.resize(size, Image.Resampling.NEAREST)
            left, top = column * _TILE, row * _TILE
            picture.paste(tile, (left, top + 14))
            pen.text((left + 2, top + 1), f"{name}, {plane}", fill="white")
            middle = top + 8 + tile.height // 2
            for at, letter in zip((2, tile.width - 8), PLANE_ENDS[plane], strict=True):
                pen.text((left + at, middle), letter, fill="yellow")
    file = io.BytesIO()
    picture.save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def _to_nifti(array: Bytes, affine: Affine) -> str:
    """A volume as NIfTI, gzipped, in base64."""
    content = nib.Nifti1Image(array, affine).to_bytes()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
