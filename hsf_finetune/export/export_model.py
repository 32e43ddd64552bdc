"""Writes a model for another program, and proves it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export import to_bundle, to_checkpoint, to_hsf, to_nnunet, to_onnx
from hsf_finetune.export.door import Door
from hsf_finetune.export.export_folder import complete_folder, new_folder, refuse_existing
from hsf_finetune.export.proof import Proof, compare_labels, require_equal
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.export.upload import repository_of, upload_folder
from hsf_finetune.inference.read_scan import Scan, read_channels
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.system.caller_state import kept_caller_state
from hsf_finetune.system.errors import ConfigError

DOORS: Mapping[str, Door] = {
    door.name: door
    for door in (to_hsf.DOOR, to_onnx.DOOR, to_bundle.DOOR, to_nnunet.DOOR, to_checkpoint.DOOR)
}


@dataclass(frozen=True)
class Export:
    """An export that was written.

    Args:
        folder: with everything that it consists of.
        door: what it is for: `hsf`, `onnx`, ...
        usage: how it is used, as Markdown.
        proof: what the proof found; None where there was none.
        page: where it was uploaded to; empty where it was not.
    """

    folder: Path
    door: str
    usage: str
    proof: Proof | None
    page: str = ""

    def __str__(self) -> str:
        """Where it is, how it is used, and its proof."""
        found = self.proof.line() if self.proof else "nothing compared the export with the model"
        title = "proved" if self.proof else "not proved"
        return f"{self.usage}\n\n{title}: {found}\neverything is in {self.folder}" + (
            f"\nuploaded to {self.page}, which is private" if self.page else ""
        )


@kept_caller_state()
def export(
    model: str | Path | ScanModel,
    to: str,
    output: str | Path,
    *,
    scan: Scan | None = None,
    proof: bool = True,
    upload: str | None = None,
) -> Export:
    """Writes a model for another program, in a new folder, and proves it in the program's runtime.

    The export segments a scan in the runtime of the program that it is for. Where it does not do
    so as the model itself, nothing is left behind.

    Args:
        model: folder of a run, a checkpoint, or a model from `load_model`.
        to: `hsf` (a model for HSF), `onnx` (one ONNX file), `bundle` (for MONAI),
            `nnunet` (a results folder of nnU-Net) or `checkpoint` (weights and card alone).
        output: the folder, which must not exist.
        scan: for the proof; None is a validation case of the run.
        proof: whether to do so.
        upload: `hf://OWNER/NAME`, a new private repository that the folder is also sent to.

    Returns:
        `.folder`, `.usage` with the command that uses it, and `.proof`.

    Raises:
        ConfigError: there is no such form of export, the model is one that it cannot carry, a
            package is missing, or there is no scan for the proof.
        OutputError: the folder exists, cannot be written or sent, or the proof failed.

    Examples:
        >>> import hsf_finetune as hf
        >>> shared = hf.export("outputs/source", "checkpoint", "shared")
        >>> shared.proof.differing
        0
    """
    if to not in DOORS:
        raise ConfigError(f"there is no export to '{to}'", expected=", ".join(DOORS))
    door, output = DOORS[to], Path(output).expanduser()
    repository = repository_of(upload) if upload else None
    refuse_existing(output)
    trained = TrainedModel.read(model, output.name)
    whole, trained = trained, trained if door.has_card else trained.without_postprocessing()
    door.check(trained)
    _require_packages(door, proof)
    channels = _read_scan(trained, scan) if proof else []
    with new_folder(output) as folder:
        usage = door.write(trained, folder)
        found = _prove(door, trained, folder, channels) if proof else None
        complete_folder(folder, door, whole, usage, found)
    page = upload_folder(output, repository) if repository else ""
    return Export(output, to, usage, found, page)


# -------------------------------------------------------------------- internals
def _require_packages(door: Door, proof: bool) -> None:
    missing = door.missing_packages()
    needed = [name for name in missing if proof or name in door.writers]
    if needed:
        raise ConfigError(
            f"--to {door.name} needs {' and '.join(needed)}",
            fix=f"pip install {' '.join(needed)}"
            + ("" if set(needed) & door.writers else "; or --no-proof writes it unproved"),
        )


def _read_scan(model: TrainedModel, given: Scan | None) -> list[Volume]:
    card = model.card
    scan = list(model.reference_scan()) if given is None else given
    return read_channels(scan, card.in_channels, geometry=card.hdf5)


def _prove(door: Door, model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> Proof:
    expected = model.predictor.predict([(one.array, one.affine) for one in channels])
    labels = door.segment(model, folder, channels)
    proof = compare_labels(expected, labels, door.runtime())
    window = model.card.preprocessing.window_vox
    larger = any(n > w for n, w in zip(sorted(proof.shape), sorted(window), strict=True))
    size = "x".join(map(str, window))
    smaller = f"give a scan of at most {size} voxels, which `predict` takes in one piece"
    require_equal(proof, door.least_equal, channels[0], [door.advice, smaller if larger else ""])
    return proof
