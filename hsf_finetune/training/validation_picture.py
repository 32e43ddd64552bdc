"""A picture of a validation case: image, truth and prediction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.labels.label_colours import LabelRow, palette_colour, unit_colour
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.training.validation_dice import case_dice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALPHA = 0.6
_PAUSE_S = 10.0
"""Least time between two pictures, each of which takes about .3 s, but for the last."""


class ValidationPicture(Callback):
    """Draws the first validation case at most ten times in a run, and after its last epoch.

    The picture goes to TensorBoard, and the latest one to `preview.png`.

    Args:
        path: where to write the latest picture.
        classes: names of the output channels.
        rows: the labels with their colours.
    """

    def __init__(self, path: Path, classes: Sequence[str], rows: Sequence[LabelRow]) -> None:
        self._path = path
        self._classes = tuple(classes)
        self._colours = [unit_colour(row.colour) for row in rows]
        self._next_s = 0.0

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first case, if a picture is due."""
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 1
        due = epoch % max(epochs // 10, 1) == 0 and time.monotonic() >= self._next_s
        due = due or epoch == epochs - 1
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        # Imported late, so that training starts sooner.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.image import imsave

        self._next_s = time.monotonic() + _PAUSE_S
        found = outputs[0].argmax(dim=0)
        figure = draw_first_case(batch, found, self._classes, self._colours)
        scores = case_dice(outputs[0], batch["label"][0], batch["allowed"][0], self._classes)
        dice = f", Dice {np.mean([*scores.values()]):.3f}" if scores else ""
        figure.suptitle(f"{batch['case'][0]}, epoch {epoch}{dice}", fontsize=11)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
        with atomic_write(self._path) as temporary:
            imsave(temporary, picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "validation case", picture, trainer.global_step, dataformats="HWC"
                )


def draw_first_case(
    batch: Batch,
    prediction: Tensor,
    classes: Sequence[str],
    colours: Sequence[tuple[float, float, float]] = (),
) -> Figure:
    """Three planes through the centre of a batch's first case: image, truth and prediction.

    A set of classes has the mean of their colours; voxels of any class are grey.

    Args:
        batch: of which the first case is drawn, with RAS+ axes.
        prediction: its class indices, (X, Y, Z).
        classes: names, background first.
        colours: of the classes without the background; none are those of the palette.
    """
    from matplotlib.figure import Figure  # imported late, as above
    from matplotlib.patches import Patch

    from hsf_finetune.check.case_pictures import PLANES, mark_ends

    image, rows, allowed = batch["image"][0, 0], batch["label"][0], batch["allowed"][0]
    drawn = (allowed.any(dim=1) & ~allowed[:, 0])[rows.long()]
    centre = _centre(drawn if bool(drawn.any()) else prediction > 0)
    colours = colours or [unit_colour(palette_colour(k)) for k in range(len(classes) - 1)]
    class_colours = np.array([(0, 0, 0, 0), *((*colour, _ALPHA) for colour in colours)])
    row_colours = _row_colours(allowed.cpu().numpy(), class_colours)
    figure = Figure(figsize=(9, 9.6), dpi=80)
    # Computing the layout of each picture would take longer than drawing it.
    axes = figure.subplots(3, 3, subplot_kw={"xticks": (), "yticks": ()})
    figure.subplots_adjust(0.01, 0.06, 0.99, 0.93, wspace=0.03, hspace=0.08)
    columns = (
        ("image", None, class_colours),
        ("truth", rows, row_colours),
        ("prediction", prediction, class_colours),
    )
    for row, plane in enumerate(PLANES):
        grey = _slice(image, row, centre)
        low, high = np.percentile(grey, [1, 99])
        for column, (name, labels, label_colours) in enumerate(columns):
            axis = axes[row][column]
            axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            if labels is not None:
                axis.imshow(label_colours[_slice(labels, row, centre).astype(int)])
            axis.set_axis_off()
            axis.set_title(f"{name}, {plane}" if row == 0 else plane, fontsize=9)
            mark_ends(axis, plane)
    patches = [Patch(color=c, label=n) for c, n in zip(colours, classes[1:], strict=True)]
    figure.legend(handles=patches, loc="lower center", ncols=min(len(patches), 8))
    return figure


def _row_colours(
    allowed: npt.NDArray[np.bool_], class_colours: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Colour of each label row, (rows, 4): of its classes; none with the background; or grey."""
    colours = np.zeros((len(allowed), 4))
    for row, members in enumerate(allowed):
        if members.all():
            colours[row] = (0.5, 0.5, 0.5, _ALPHA / 2)
        elif members.any() and not members[0]:
            colours[row] = class_colours[members].mean(axis=0)
    return colours


def _centre(labelled: Tensor) -> list[int]:
    """The voxel at the centre of what is labelled, or of the volume."""
    where = torch.nonzero(labelled)
    if len(where) == 0:
        return [n // 2 for n in labelled.shape]
    middle = where.float().mean(dim=0)
    return [int(v) for v in where[((where - middle) ** 2).sum(dim=1).argmin()]]


def _slice(volume: Tensor, axis: int, centre: Sequence[int]) -> npt.NDArray[Any]:
    """A plane as it is usually shown: superior (or anterior) up."""
    plane = volume.select(axis, centre[axis]).cpu().float().numpy()
    return np.flipud(plane.T)
