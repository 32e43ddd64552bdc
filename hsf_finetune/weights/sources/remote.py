"""Pretrained weights that are not a path: URLs, the Hugging Face Hub, and names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsf_finetune.config.settings import NamedWeights
from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.urls import is_remote

if TYPE_CHECKING:
    from hsf_finetune.weights.sources.download import FetchedFile
    from hsf_finetune.weights.sources.http_file import Progress


@dataclass(frozen=True)
class RemoteWeights:
    """Weights from the network, and what is known of them."""

    pretrained: str
    file: FetchedFile
    named: NamedWeights | None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.file.path

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class of each output channel, background first, where their description says it."""
        return tuple(self.named.classes) if self.named and self.named.classes else None

    def lines(self) -> list[str]:
        """What to print, line by line."""
        named, file = self.named, self.file
        lines = [f"weights: {named.name if named else self.pretrained}"]
        lines += describe_named(named) if named else []
        if file.url:
            lines.append(f"  {'from the cache' if file.cached else f'fetched from {file.url}'}")
        lines.append(f"  kept at {file.path}")
        if file.checksum is None:
            return lines
        if file.checked:
            return [*lines, f"  checksum: {file.checksum}, as expected"]
        pin = f"finetuning.checksum={file.checksum}"
        return [*lines, f"  no checksum was given; to be sure that the file stays the same: {pin}"]

    def to_dict(self) -> dict[str, Any]:
        """What to save, in types that JSON has."""
        file = self.file
        known = {
            "asked": self.pretrained,
            "url": file.url,
            "file": str(file.path),
            "checksum": str(file.checksum) if file.checksum else None,
            "checked": file.checked,
        }
        if self.named is None:
            return known
        described = self.named.model_dump(mode="json", exclude={"url", "checksum", "models"})
        return known | described | {"models": self.named.models.name}


def describe_named(named: NamedWeights) -> list[str]:
    """What is known of named weights, line by line."""
    classes = [f"  classes: {', '.join(named.classes)}"] if named.classes else []
    return [
        "; ".join([f"  licence: {named.licence}", *named.conditions]),
        *classes,
        f"  input: {', '.join(named.channels)}",
        f"  about: {named.source}",
        f"  cite: {named.citation}",
    ]


def fetch_weights(
    pretrained: str,
    named: NamedWeights | None = None,
    checksum: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    file: str | None = None,
) -> RemoteWeights | None:
    """The weights that `finetuning.pretrained` names, where that is not a path.

    Returns:
        The weights, or None for a path.

    Raises:
        ConfigError: the address or the checksum is malformed.
        WeightsError: the file cannot be fetched, or has another checksum.
    """
    if named is None and not is_remote(pretrained):
        return None
    # Imported late: most weights are files that the user has.
    from hsf_finetune.weights.sources.download import FetchedFile, fetch_file

    if named is None:
        return RemoteWeights(pretrained, fetch_file(pretrained, checksum, offline, progress), None)
    second = Checksum.parse(checksum) if checksum else None
    if file is not None:
        # A file or folder that the user has is read, whatever its checksum.
        path = Path(file)
        found = Checksum.of_file(path) if path.is_file() else None
        fetched = FetchedFile(path, "", found, checked=False, cached=True)
    elif named.url is None:
        raise ConfigError(
            f"the weights '{pretrained}' have no address that they can be fetched from",
            expected=f"the file, from {named.source}",
            fix="weights.file=PATH, once you have it",
        )
    else:
        fetched = fetch_file(named.url, named.checksum, offline, progress)
    if second and fetched.path.is_file():
        check_file(fetched.path, second, "remove finetuning.checksum: named weights have their own")
    return RemoteWeights(pretrained, fetched, named)
