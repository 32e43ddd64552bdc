"""What is found in a folder: volumes, cases, and notes on what is not certain."""

from __future__ import annotations

from dataclasses import dataclass

from hsf_finetune.data.volumes.read_volume import VolumeRef

WITHOUT_IMAGE = "a label without an image"
WITHOUT_LABEL = "an image without a label"


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """A volume of the folder, in a file of its own or inside an HDF5 file.

    Args:
        ref: the file, and the HDF5 dataset in it.
        folders: the folders between the listed folder and the file; for an HDF5 file with
            several volumes also the file's own name and the groups inside.
        name: of the file without its suffix, or of the HDF5 dataset.
    """

    ref: VolumeRef
    folders: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class FoundCase:
    """An image, one volume per channel, and its manual label; `series` is such as `left_t2w`."""

    series: str
    channels: tuple[ListedVolume, ...]
    label: ListedVolume

    @property
    def volumes(self) -> tuple[ListedVolume, ...]:
        """Its channels and its label."""
        return (*self.channels, self.label)


@dataclass(frozen=True)
class UnsureNote:
    """Something that the user should check, marked `# unsure:` above a key of the YAML."""

    key: str
    text: str


@dataclass(frozen=True)
class FolderLayout:
    """How a folder is organised, and the cases that this gives.

    Args:
        title: of the layout, for the user.
        cases: images with their labels.
        channel_names: of the input channels, where they are known.
        notes: what is not certain.
        left_out: volumes that no case uses, and why.
    """

    title: str
    cases: tuple[FoundCase, ...]
    channel_names: tuple[str, ...] | None = None
    notes: tuple[UnsureNote, ...] = ()
    left_out: tuple[tuple[ListedVolume, str], ...] = ()


def place_of(ref: VolumeRef) -> tuple[str, str]:
    """File and dataset of a volume, by which it is compared and sorted, whatever its geometry."""
    return ref.file, ref.key or ""
