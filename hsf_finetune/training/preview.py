"""A picture of a validation case: image, truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Patch
from torch import Tensor

from hsf_finetune.data.datamodule import Batch
from hsf_finetune.files import atomic_write

_PLANES = ("sagittal", "coronal", "axial")


class Preview(Callback):
    """Draws the first validation case, some ten times in a run and after its last epoch.

    The picture goes to TensorBoard, and the latest one to `preview.png`.

    Args:
        path: where to write the latest picture.
        classes: names of the output channels.
        max_epochs: of the run.
    """

    def __init__(self, path: Path, classes: Sequence[str], max_epochs: int) -> None:
        self._path = path
        self._classes = tuple(classes)
        self._every = max(max_epochs // 10, 1)
        self._last_epoch = max_epochs - 1

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first case, if it is time to."""
        due = trainer.current_epoch % self._every == 0 or trainer.current_epoch == self._last_epoch
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        classes_of_row = batch["allowed"][0].float().argmax(dim=1)
        figure = draw_case(
            batch["image"][0, 0],
            classes_of_row[batch["label"][0].long()],
            outputs[0].argmax(dim=0),
            self._classes,
            f"{batch['case'][0]}, epoch {trainer.current_epoch}",
        )
        picture = _rendered(figure)
        with atomic_write(self._path) as temporary:
            imsave(temporary, picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "validation case", picture, trainer.global_step, dataformats="HWC"
                )


def draw_case(
    image: Tensor, truth: Tensor, prediction: Tensor, classes: Sequence[str], title: str
) -> Figure:
    """Three planes through the annotation's centre: image, truth and prediction.

    Args:
        image: (X, Y, Z), RAS+ axes.
        truth: class indices, (X, Y, Z).
        prediction: class indices, (X, Y, Z).
        classes: names, background first.
        title: heading of the figure.
    """
    centre = _centre(truth if bool((truth > 0).any()) else prediction)
    colours = [mpl.colormaps["tab10"](k % 10)[:3] for k in range(len(classes) - 1)]
    figure = Figure(figsize=(9, 9.6), dpi=80, layout="constrained")
    axes = figure.subplots(3, 3)
    columns = (("image", None), ("truth", truth), ("prediction", prediction))
    for row, plane in enumerate(_PLANES):
        grey = _slice(image, row, centre)
        low, high = np.percentile(grey, [1, 99])
        for column, (name, labels) in enumerate(columns):
            axis = axes[row][column]
            axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            if labels is not None:
                axis.imshow(_coloured(_slice(labels, row, centre), colours))
            axis.set_axis_off()
            axis.set_title(f"{name}, {plane}" if row == 0 else plane, fontsize=9)
    figure.suptitle(title, fontsize=11)
    patches = [Patch(color=c, label=n) for c, n in zip(colours, classes[1:], strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 8))
    return figure


def _rendered(figure: Figure) -> npt.NDArray[np.uint8]:
    """The figure's pixels, (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _centre(labels: Tensor) -> list[int]:
    """The voxel at the centre of what is labelled, or of the volume."""
    where = torch.nonzero(labels > 0)
    if len(where) == 0:
        return [n // 2 for n in labels.shape]
    middle = where.float().mean(dim=0)
    return [int(v) for v in where[((where - middle) ** 2).sum(dim=1).argmin()]]


def _slice(volume: Tensor, axis: int, centre: Sequence[int]) -> npt.NDArray[Any]:
    """A plane as it is usually shown: superior (or anterior) up."""
    plane = volume.select(axis, centre[axis]).cpu().float().numpy()
    return np.flipud(plane.T)


def _coloured(labels: npt.NDArray[Any], colours: Sequence[tuple[float, ...]]) -> npt.NDArray[Any]:
    picture = np.zeros((*labels.shape, 4))
    for number, colour in enumerate(colours, start=1):
        picture[labels == number] = (*colour, 0.6)
    return picture
