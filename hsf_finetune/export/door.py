"""What a form of export consists of: what it can carry, what it writes, and how it is proved."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hsf_finetune.config.settings.base_settings import Group
from hsf_finetune.data.volumes.nibabel_formats import save_image
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.system.errors import ConfigError

_WINDOWS = ("window_vox", "overlap", "blending", "sigma_share")
_DESCRIBING = frozenset(("resampling", "patch_vox", *_WINDOWS, "channel_names", "sides"))
"""Entries of a preprocessing that change nothing by themselves, or that no other program has."""


LEAST_EQUAL = 0.999
"""Rounding decides few voxels, where two classes tie."""


@dataclass(frozen=True)
class Door:
    """A form of export.

    Args:
        name: as in `--to NAME`.
        program: what uses it, for messages.
        packages: Python packages that prove it; module -> name in pip.
        check: refuses models that it cannot carry, by name.
        write: writes the files into a folder; returns how they are used, as Markdown, with
            commands that are typed in that folder.
        segment: label values, (X, Y, Z), of a scan's channels, by the program's own runtime.
        hub: tag of the Hugging Face Hub for the library that uses it.
        least_equal: share of the segmented voxels that must be equal in the proof.
        advice: what to do where the proof fails.
        writers: those of the packages, by their names in pip, without which it cannot be written.
        has_card: whether the program follows the model card: calibration and post-processing.
    """

    name: str
    program: str
    packages: Mapping[str, str]
    check: Callable[[TrainedModel], None]
    write: Callable[[TrainedModel, Path], str]
    segment: Callable[[TrainedModel, Path, Sequence[Volume]], npt.NDArray[Any]]
    hub: str
    least_equal: float = LEAST_EQUAL
    advice: str = ""
    writers: frozenset[str] = frozenset()
    has_card: bool = False

    def missing_packages(self) -> list[str]:
        """Packages that are not installed, by their names in pip."""
        return [pip for name, pip in self.packages.items() if not importlib.util.find_spec(name)]

    def runtime(self) -> str:
        """The packages and their versions."""
        return ", ".join(f"{pip} {metadata.version(pip)}" for pip in self.packages.values())


def refuse_unlike(card: ModelCard, program: str, carried: Mapping[str, Collection[Any]]) -> None:
    """Refuses a model whose scans are prepared in a way that a program cannot follow.

    An entry of its preprocessing that is not listed must have its default: so what this package
    learns to do later is refused until an export carries it.

    Args:
        card: of the model.
        program: for the message.
        carried: entry -> the values that the program can follow.

    Raises:
        ConfigError: names each such entry, and the ways out.
    """
    usual = type(card.preprocessing)()
    odd = []
    for name in type(usual).model_fields:
        value, default = getattr(card.preprocessing, name), getattr(usual, name)
        allowed = carried.get(name, (default,))
        if name not in _DESCRIBING and value not in allowed:
            possible = " or ".join(map(_text, allowed)) or "one that it has, too"
            odd.append((f"{name}: {_text(value)}", f"{name}: {possible}"))
    if odd:
        raise ConfigError(
            f"{program} cannot prepare scans as this model needs them",
            found="\n".join(found for found, _ in odd),
            expected="\n".join(expected for _, expected in odd),
            fix="--to checkpoint carries every model; or train one with `preprocessing` as expected",
        )


def _text(value: object) -> str:
    """A value as a user writes it: of a group its kind, and what differs from the usual."""
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if not isinstance(value, Group):
        return str(value)
    changed = value.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    return " ".join([value.kind, *(f"{name}={one}" for name, one in changed.items())])  # type: ignore[attr-defined]


def save_channels(channels: Sequence[Volume], folder: Path) -> list[str]:
    """Writes the channels of a scan as NIfTI, for programs that read files; returns their paths."""
    paths = [folder / f"scan_{number:04d}.nii.gz" for number in range(len(channels))]
    for path, volume in zip(paths, channels, strict=True):
        voxels = np.asarray(volume.array, dtype=np.float32)
        save_image(nib.Nifti1Image(voxels, volume.affine), path)
    return [str(path) for path in paths]


def read_labels(path: Path) -> npt.NDArray[np.int64]:
    """The label values in a NIfTI that a program wrote, (X, Y, Z)."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj).astype(np.int64)
