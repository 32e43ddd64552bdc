"""Pictures of flagged cases: the label over its image, in three planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.orientation import axes_to, turn
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.labels.label_colours import palette_colour, unit_colour
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import UserError

PLANES = ("sagittal", "coronal", "axial")
"""The planes across the three axes of RAS+ volumes."""
PLANE_ENDS = {"sagittal": "PA", "coronal": "LR", "axial": "LR"}
"""What lies at the left and at the right of a plane: patients' sides are not exchanged."""
_LINE_CHARS = 110
_LEGEND_COLUMNS, _LEGEND_NAMES = 6, 12


def draw_flagged_cases(
    folder: Path,
    cases: Sequence[Case],
    findings: Sequence[Finding],
    most: int,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draws cases with a warning or refusal as `folder/CASE.png`, the most serious first.

    Of an image that cannot be read there is no picture.

    Returns:
        How many flagged cases are not drawn, since no more than `most` are.

    Raises:
        OutputError: a picture cannot be written.
    """
    flagged: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.case and finding.tier != "repaired":
            flagged.setdefault(finding.case, []).append(finding)
    by_name = {case.name: case for case in cases}
    for done, (name, own) in enumerate(list(flagged.items())[:most], start=1):
        figure = _draw(by_name[name], own)
        if figure is not None:
            with atomic_write(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png")
        if progress:
            progress(done, min(most, len(flagged)))
    return max(len(flagged) - most, 0)


def mark_ends(axis: Axes, plane: str) -> None:
    """Writes L and R, or P and A, at the sides of a plane along RAS+ axes."""
    for place, text in zip((0.02, 0.98), PLANE_ENDS[plane], strict=True):
        side = "left" if place < 0.5 else "right"
        axis.text(
            place,
            0.5,
            text,
            color="yellow",
            ha=side,
            va="center",
            transform=axis.transAxes,
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0},
        )


def _draw(case: Case, findings: Sequence[Finding]) -> Figure | None:
    """Image above, image with label below; None where the image cannot be read."""
    image, label = _read_along_ras(case.images[0]), _read_along_ras(case.label, whole=True)
    if image is None:
        return None
    values = None
    if label is not None and label.shape == image.shape:
        values = label
    position = np.array(image.shape) // 2
    if values is not None and values.any():
        position = np.median(np.argwhere(values), axis=0).astype(int)
    figure = Figure(figsize=(9, 6.8), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3, subplot_kw={"xticks": (), "yticks": ()})
    figure.subplots_adjust(0.01, 0.08, 0.99, 0.8, wspace=0.03, hspace=0.03)
    low, high = np.percentile(image, [1, 99])
    for column, plane in enumerate(PLANES):
        grey = np.rot90(np.take(image, int(position[column]), axis=column))
        for axis in axes[:, column]:
            axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            axis.set_axis_off()
        axes[0][column].set_title(plane, fontsize=9)
        if values is not None:
            shown = np.rot90(np.take(values, int(position[column]), axis=column))
            axes[1][column].imshow(_colours(shown, alpha=0.55 * (shown != 0)))
        mark_ends(axes[0][column], plane)
    if values is not None:
        _add_legend(figure, case, np.unique(values[values != 0]))
    lines = [f"{finding.tier}: {finding.what}"[:_LINE_CHARS] for finding in findings[:4]]
    without = "" if values is not None else "\n(the label cannot be drawn on this grid)"
    figure.suptitle("\n".join([case.name, *lines]) + without, fontsize=9)
    return figure


def _colours(values: npt.NDArray[Any], alpha: npt.NDArray[np.float64] | float) -> Any:
    """The colours of label values, RGBA."""
    shown, places = np.unique(values, return_inverse=True)
    palette = np.array(
        [unit_colour(palette_colour(max(int(value) - 1, 0))) for value in shown.tolist()]
    )
    rgb = palette[places].reshape(*values.shape, 3)
    return np.concatenate([rgb, np.broadcast_to(alpha, values.shape)[..., None]], axis=-1)


def _add_legend(figure: Figure, case: Case, values: npt.NDArray[Any]) -> None:
    """The value and the name of each colour."""
    protocol = case.protocol
    sets = dict(protocol.sets)
    names = dict(zip(protocol.row_sets, protocol.row_names, strict=True))
    shown = values[:_LEGEND_NAMES]
    patches = [
        Patch(color=colour, label=f"{value} {names[sets[value]] if value in sets else 'unknown'}")
        for value, colour in zip(map(int, shown.tolist()), _colours(shown, 1.0), strict=True)
    ]
    figure.legend(handles=patches, loc="lower center", ncols=_LEGEND_COLUMNS, fontsize=8)


def _read_along_ras(ref: VolumeRef, whole: bool = False) -> npt.NDArray[Any] | None:
    """The voxels along RAS+ axes, 0 where they are not finite; None where they cannot be read.

    They are in single precision, or, of labels, `whole` numbers of the file's own type.
    """
    try:
        volume = read_volume(ref)
        axes = axes_to(volume.affine)
        if np.isnan(axes).any():
            return None
        with np.errstate(over="ignore"):  # beyond single precision
            dtype = None if whole else np.float32
            voxels: npt.NDArray[Any] = np.nan_to_num(
                np.asarray(turn(volume.array, axes), dtype), posinf=0, neginf=0
            )
        return np.rint(voxels) if voxels.dtype.kind == "f" and whole else voxels
    except UserError:
        return None
