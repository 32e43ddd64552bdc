"""The folder of an export: complete or not there at all, and never over another one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from hsf_finetune.export.door import Door
from hsf_finetune.export.proof import Proof
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.system.atomic_files import failed_write, write_json
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import OutputError, UserError
from hsf_finetune.system.version import __version__

CHECKSUMS = "SHA256SUMS"
_NOT_KNOWN = "not recorded"


def refuse_existing(path: Path) -> None:
    """Refuses a path that exists.

    Raises:
        OutputError: with what to do.
    """
    if path.exists() or path.is_symlink():
        raise OutputError(
            "what exists is never written over",
            file=path,
            fix="give a new name: -o OUT",
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder under another name, which gets its own name where nothing went wrong.

    Args:
        path: the folder to make; missing parents are made.

    Yields:
        The folder to write into, beside it; it is removed where anything goes wrong.

    Raises:
        OutputError: the path exists, or the folder cannot be made.
    """
    refuse_existing(path)
    temp = path.with_name(f".partial-{secrets.token_hex(4)}")
    try:
        try:
            temp.mkdir(parents=True)
            yield temp
            refuse_existing(path)
            os.rename(temp, path)
        except UserError:
            raise
        except Exception as error:
            cause = error if isinstance(error, OSError) else failed_write(error, path, temp)
            if cause is None:
                raise
            reason = os.strerror(cause.errno) if cause.errno else str(cause)
            raise OutputError(
                "the export cannot be written",
                file=cause.filename or path,
                found=reason,
                fix="give another folder, on a disk with free space: -o OUT",
            ) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def complete_folder(
    folder: Path, door: Door, model: TrainedModel, usage: str, proof: Proof | None
) -> None:
    """Adds README, LICENSE, the model card and checksums to the files of an export.

    Args:
        folder: with the files that the door has written.
        door: what they are for.
        model: what they hold.
        usage: how they are used, as Markdown.
        proof: what the proof found; None where there was none.

    Raises:
        OutputError: a file cannot be written.
    """
    card = model.card.to_dict() | {"origin": dict(model.origin), "exported_with": __version__}
    write_json(folder / "model_card.json", card | {"export": door.name, "proof": proof})
    (folder / "LICENSE").write_text(_licence_text(model), encoding="utf-8")
    (folder / "README.md").write_text(_readme(door, model, usage, proof), encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{Checksum.of_file(p).digits}  {p.relative_to(folder).as_posix()}" for p in files]
    (folder / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


# -------------------------------------------------------------------- internals
def _readme(door: Door, model: TrainedModel, usage: str, proof: Proof | None) -> str:
    """The README, whose first lines the Hugging Face Hub reads."""
    card = model.card
    rows = [
        f"| {number} | {name} | {card.label_values[name]} |"
        for number, name in enumerate(card.classes)
    ]
    prepared = card.preprocessing.to_dict() | {"in_channels": card.in_channels}
    proved = (
        proof.line()
        if proof
        else "This export has not been proved: nothing compared it with the model."
    )
    parts = [
        "---",
        f"library_name: {door.hub}",
        "pipeline_tag: image-segmentation",
        f"tags: [medical, segmentation, 3d, {card.models.name}]",
        "---",
        "",
        f"# {model.name}",
        "",
        f"A 3D segmentation model for {door.program}, made with hsf_finetune {__version__}.",
        "",
        "## Use",
        "",
        usage.strip(),
        "",
        "## Classes",
        "",
        "| channel | class | label value |",
        "|---|---|---|",
        *rows,
        "",
        "## Scans",
        "",
        "What the network is given, and how; `model_card.json` has everything that is known.",
        "",
        "```yaml",
        yaml.safe_dump(prepared, sort_keys=False).rstrip(),
        "```",
        "",
        "## Proof",
        "",
        proved,
        "",
        *_left_out(door, card),
        "## Licence and citations",
        "",
        "See `LICENSE`. `sha256sum -c SHA256SUMS` checks the files.",
    ]
    return "\n".join(parts) + "\n"


def _left_out(door: Door, card: ModelCard) -> list[str]:
    """What the model card has and the program does not do."""
    left = [f"- post-processing: {line}" for line in card.postprocessing.lines()]
    if card.calibration:
        left.append(
            f"- calibration: {card.calibration.line()}; the probabilities of this export are those "
            "before it"
        )
    if door.has_card or not left:
        return []
    return [f"## What {door.program} does not do", "", *left, ""]


def _licence_text(model: TrainedModel) -> str:
    """What is known of the licence of the weights that the model was fine-tuned from."""
    origin = model.origin
    known = [
        f"{title}: {origin.get(key) or _NOT_KNOWN}"
        for key, title in (
            ("name", "Source weights"),
            ("licence", "Licence of the source weights"),
            ("citation", "Cite"),
            ("url", "From"),
        )
    ]
    if not origin:
        known = ["Source weights: none, or not recorded with this model."]
    return "\n".join(
        [
            # One line, a whole sentence: who reads a licence's first line sees that one.
            "Fine-tuned weights are made from those that they started from and from training data, "
            "and whoever shares them needs the right to share both.",
            "",
            *known,
            "",
            "hsf_finetune itself is licensed under the MIT licence.",
            "",
        ]
    )
