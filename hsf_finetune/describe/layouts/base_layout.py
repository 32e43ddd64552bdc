"""What a look at a folder comes to: its cases, and what is doubtful about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef


@dataclass(frozen=True)
class Item:
    """A volume of the folder, in a file of its own or inside an HDF5 file.

    Args:
        ref: where it lies.
        folders: the folders on its way, from the one that was given on; of an HDF5 file
            with several volumes also the file's own name and the groups inside.
        name: of the file without its suffix, or of the HDF5 dataset.
    """

    ref: VolumeRef
    folders: tuple[str, ...]
    name: str

    @property
    def pseudo_path(self) -> Path:
        """Folders and name as a path, by which a subject can be told."""
        return Path(*self.folders, self.name)


@dataclass(frozen=True)
class Annotated:
    """An image and the label that belongs to it.

    Args:
        series: what to call images of this kind (`left_t2w`).
        channels: one volume per input channel.
        label: the manual segmentation.
    """

    series: str
    channels: tuple[Item, ...]
    label: Item

    @property
    def items(self) -> tuple[Item, ...]:
        """Its channels and its label."""
        return (*self.channels, self.label)


@dataclass(frozen=True)
class Doubt:
    """Something to look at.

    Args:
        key: of the YAML, above which it is written.
        text: one sentence.
    """

    key: str
    text: str


@dataclass(frozen=True)
class Layout:
    """How a folder is laid out, and the cases that this gives.

    Args:
        title: in words.
        cases: images with their labels.
        channel_names: of the input channels, where something tells them.
        doubts: what is not certain.
        left_out: volumes that no case uses, and why.
    """

    title: str
    cases: tuple[Annotated, ...]
    channel_names: tuple[str, ...] | None = None
    doubts: tuple[Doubt, ...] = ()
    left_out: tuple[tuple[Item, str], ...] = ()


def some(things: list[str], most: int = 3) -> str:
    """The first few, and how many there are."""
    rest = f", ... ({len(things)})" if len(things) > most else ""
    return ", ".join(things[:most]) + rest
