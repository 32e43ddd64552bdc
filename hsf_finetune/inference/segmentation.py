"""A segmented scan: labels, volumes and probabilities on the scan's own grid."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.text import Text

from hsf_finetune.check.check_headers import check_header
from hsf_finetune.check.check_intensities import check_intensities
from hsf_finetune.check.findings import Finding
from hsf_finetune.data.preprocessing.orientation import axes_to, turn
from hsf_finetune.data.volumes.affines import Affine
from hsf_finetune.data.volumes.nibabel_formats import NIFTI
from hsf_finetune.data.volumes.read_volume import HDF5, Volume
from hsf_finetune.inference.compare_scan import compare_result, compare_scan
from hsf_finetune.inference.formats.slicer_file import SLICER, write_slicer_file
from hsf_finetune.inference.formats.terminology import find_codes
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.quality_model import Foretold
from hsf_finetune.inference.write_segmentation import write_segmentation
from hsf_finetune.labels.label_colours import unit_colour
from hsf_finetune.system import console
from hsf_finetune.system.caller_state import kept_caller_state
from hsf_finetune.system.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

_PLANES = ("sagittal", "coronal", "axial")
_WRITTEN = (*NIFTI, SLICER, *HDF5)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model found in a scan. It shows itself in a notebook.

    Args:
        labels: the user's own label values, (X, Y, Z), in the smallest type of integers that holds
            all of them.
        label_values: class -> its value in `labels`, in the order of the classes.
        volumes_mm3: class -> its volume in mm3; without the background.
        channels: the scan, on its file's grid.
        card: of the model.
        predict_probabilities: computes `probabilities`.
        sureness: of each class but the background, see `SurenessSums`; empty if not measured.
    """

    labels: Array
    label_values: Mapping[str, int]
    volumes_mm3: Mapping[str, float]
    channels: tuple[Volume, ...] = field(repr=False)
    card: ModelCard = field(repr=False)
    predict_probabilities: Callable[[], npt.NDArray[np.float32]] = field(repr=False)
    sureness: tuple[float, ...] = field(default=(), repr=False)

    @property
    def scan(self) -> Volume:
        """The first channel."""
        return self.channels[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return tuple(self.label_values)

    @property
    def affine(self) -> Affine:
        """4x4, from voxel to RAS+ millimetres."""
        return self.scan.affine

    @cached_property
    @kept_caller_state()
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Probability of each class, (classes, X, Y, Z).

        They need more memory than all else, so the network predicts them again when they are
        first read.
        """
        return self.predict_probabilities()

    @property
    def foretold(self) -> tuple[Foretold, ...]:
        """Expected Dice of each class, and of their mean; empty where the model cannot tell."""
        quality = self.card.quality
        return (
            quality.foretell(self.classes[1:], self.sureness) if quality and self.sureness else ()
        )

    @cached_property
    def warnings(self) -> tuple[Finding, ...]:
        """What is unusual about the scan, and how it, and what was found, is unlike the training data.

        Nothing is known of the training data where they were not checked (`check=off`).
        """
        found = [
            finding
            for channel in self.channels
            for finding in (*check_header(channel, ""), *check_intensities(channel, ""))
        ]
        summary, foreground = self.card.data, self.labels != self.label_values[self.classes[0]]
        if summary:
            found += compare_scan(self.scan, summary, self.card.preprocessing.spacing_mm)
        found += compare_result(self.scan, foreground, self.volumes_mm3, summary)
        return tuple(found)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the labels with the scan's shape, affine, and sform and qform codes.

        Args:
            path: `.nii`, `.nii.gz`, `.seg.nrrd` (3D Slicer, with names and colours), `.h5` or
                `.hdf5`.
            overwrite: replace a file that exists.

        Returns:
            The path.

        Raises:
            OutputError: the file exists or is the scan itself, its name has another suffix, or
                it cannot be written.
        """
        path = Path(path).expanduser()
        if not path.name.lower().endswith(_WRITTEN):
            raise OutputError(
                "not the name of a segmentation that can be written",
                file=path,
                expected="a name with " + " or ".join(_WRITTEN),
            )
        if path.exists() and self.scan.ref.path.exists() and path.samefile(self.scan.ref.path):
            raise OutputError(
                "the segmentation would replace its scan", file=path, fix="give another name"
            )
        if path.exists() and not overwrite:
            raise OutputError(
                "the file exists", file=path, fix=f"save({str(path)!r}, overwrite=True)"
            )
        if path.name.lower().endswith(SLICER):
            codes = find_codes(self.classes[1:])
            write_slicer_file(path, self.labels, self.affine, self.card.label_rows, codes)
        else:
            write_segmentation(path, self.labels, self.scan)
        return path

    def table(self) -> console.TitledTable:
        """One row per class: its label value and its volume."""
        table = console.TitledTable(f"Segmentation of {self.scan.ref}")
        for heading in ("class", "label", "volume mm3"):
            table.add_column(heading, justify="left" if heading == "class" else "right")
        for name, volume_mm3 in self.volumes_mm3.items():
            table.add_row(Text(name), str(self.label_values[name]), console.format_size(volume_mm3))
        return table

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.draw().savefig(buffer, format="png")
        picture = base64.b64encode(buffer.getvalue()).decode()
        warnings = [Text(f"warning: {warning.error()}") for warning in self.warnings]
        page = console.html_of(self.table(), *warnings)
        return f'<img src="data:image/png;base64,{picture}">{page}'

    def __str__(self) -> str:
        """The table as text."""
        return console.text_of(self.table())

    def draw(self) -> Figure:
        """Three planes of the scan through the centre of what was found, labels over it."""
        from matplotlib.figure import Figure  # imported late: few predictions are drawn
        from matplotlib.patches import Patch

        from hsf_finetune.check.case_pictures import mark_ends

        axes = axes_to(self.affine)
        image = np.asarray(turn(self.scan.array, axes), dtype=np.float32)
        labels = np.asarray(turn(self.labels, axes))
        found = np.argwhere(labels != self.label_values[self.classes[0]])
        centre = np.median(found, axis=0) if len(found) else np.array(labels.shape) / 2
        low, high = np.percentile(image, [1, 99])
        figure = Figure(figsize=(9, 3.2), dpi=80, layout="constrained")
        for axis, (plot, plane) in enumerate(zip(figure.subplots(1, 3), _PLANES, strict=True)):
            middle = int(centre[axis])
            grey = np.rot90(np.take(image, middle, axis=axis))
            plot.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            plot.imshow(self._colour(np.rot90(np.take(labels, middle, axis=axis))))
            plot.set_title(plane, fontsize=9)
            plot.set_axis_off()
            mark_ends(plot, plane)
        rows = self.card.label_rows
        patches = [Patch(color=unit_colour(row.colour), label=row.name) for row in rows]
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8)
        return figure

    def _colour(self, plane: Array) -> Array:
        """Colours of a plane of labels, (X, Y, 4); the background is transparent."""
        picture = np.zeros((*plane.shape, 4))
        for row in self.card.label_rows:
            picture[plane == row.value] = (*unit_colour(row.colour), 0.55)
        return picture
