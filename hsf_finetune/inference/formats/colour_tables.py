"""Tables of label values, names and colours, in the formats of three programs."""

from __future__ import annotations

from collections.abc import Sequence

from hsf_finetune.labels.label_colours import LabelRow


def itksnap_text(rows: Sequence[LabelRow]) -> str:
    """Label descriptions of ITK-SNAP (Segmentation, Import label descriptions)."""
    head = "# ITK-SNAP label descriptions\n# index, red, green, blue, alpha, visible, mesh, name\n"
    lines = ['    0    0    0    0        0  0  0    "Clear Label"']
    for row in _ascending(rows):
        red, green, blue = row.colour
        name = row.name.replace('"', "'")
        lines.append(f'{row.value:5} {red:4} {green:4} {blue:4}        1  1  1    "{name}"')
    return head + "\n".join(lines) + "\n"


def freesurfer_text(rows: Sequence[LabelRow]) -> str:
    """A colour table of FreeSurfer (`freeview -v scan -v seg:colormap=lut:lut=FILE`).

    Names have no spaces in this format.
    """
    lines = [f"{0:<6} {'Unknown':<40} {0:>3} {0:>3} {0:>3} 0"]
    for row in _ascending(rows):
        red, green, blue = row.colour
        name = "-".join(row.name.split())
        lines.append(f"{row.value:<6} {name:<40} {red:>3} {green:>3} {blue:>3} 0")
    return "#No. Label Name: R G B A\n" + "\n".join(lines) + "\n"


def bids_text(rows: Sequence[LabelRow]) -> str:
    """A table of discrete segmentations (`dseg.tsv`) of BIDS."""
    lines = [f"{row.value}\t{' '.join(row.name.split())}\t{row.hex}" for row in _ascending(rows)]
    return "\n".join(["index\tname\tcolor", *lines]) + "\n"


def _ascending(rows: Sequence[LabelRow]) -> list[LabelRow]:
    return sorted(rows, key=lambda row: row.value)
