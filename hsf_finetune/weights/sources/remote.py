"""Pretrained weights that are not a path: URLs, the Hugging Face Hub, and names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsf_finetune.config.settings import NamedWeights
from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.urls import is_remote
from hsf_finetune.weights.sources.download import Fetched, fetch
from hsf_finetune.weights.sources.http_file import Patience, Progress


@dataclass(frozen=True)
class Located:
    """Weights that came from the network, and what is known of them.

    Args:
        asked: what `finetuning.pretrained` says.
        fetched: the file.
        named: its description, where it goes by a name.
    """

    asked: str
    fetched: Fetched
    named: NamedWeights | None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.fetched.path

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class of each output channel, background first, where the weights have a name."""
        return tuple(self.named.classes) if self.named else None

    def lines(self) -> list[str]:
        """What to show of it."""
        named, file = self.named, self.fetched
        lines = [f"weights: {named.name if named else self.asked}"]
        if named:
            lines += [
                f"  licence: {named.licence}",
                f"  classes: {', '.join(named.classes)}",
                f"  input: {', '.join(named.channels)}",
                f"  about: {named.source}",
                f"  cite: {named.citation}",
            ]
        lines.append(f"  {'from the cache' if file.cached else f'fetched from {file.url}'}")
        lines.append(f"  kept at {file.path}")
        if file.checked:
            lines.append(f"  checksum: {file.checksum}, as it should be")
        else:
            lines.append(
                "  no checksum was given; to make sure that the file stays the same: "
                f"finetuning.checksum={file.checksum}"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """What to save of it, as types that JSON knows."""
        named, file = self.named, self.fetched
        known = {
            "asked": self.asked,
            "url": file.url,
            "file": str(file.path),
            "checksum": str(file.checksum),
            "checked": file.checked,
        }
        if named is None:
            return known
        described = named.model_dump(mode="json", exclude={"url", "checksum", "models"})
        return known | described | {"models": named.models.name}


def locate_remote(
    pretrained: str,
    named: NamedWeights | None = None,
    checksum: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Located | None:
    """The file that `finetuning.pretrained` means, where that is no path.

    Args:
        pretrained: a URL, an `hf://` address, a name, or a path.
        named: the description of the weights of that name.
        checksum: what the file must come to, beside the one that a name brings.
        offline: take it from the cache alone.
        progress: is told the bytes that are there and the bytes in all.
        patience: time-outs and retries.

    Returns:
        The file, or None for a path.

    Raises:
        ConfigError: the address or the checksum is malformed.
        WeightsError: the file cannot be had, or has another checksum.
    """
    if named is None and not is_remote(pretrained):
        return None
    if named is None:
        return Located(pretrained, fetch(pretrained, checksum, offline, progress, patience), None)
    also = Checksum.parse(checksum) if checksum else None
    fetched = fetch(named.url, named.checksum, offline, progress, patience)
    if also:
        check_file(fetched.path, also, "leave finetuning.checksum out: names bring their own")
    return Located(pretrained, fetched, named)
