"""The weights that the settings name, before a network takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsf_finetune.config.settings import NamedWeights, PretrainedSettings, Settings
from hsf_finetune.networks.pretrained_network import resolve_network
from hsf_finetune.system.checksum import Checksum, check_file
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.infer_network import unrecognised_network_error
from hsf_finetune.weights.sources.kept_proof import proof_text
from hsf_finetune.weights.sources.licence import require_acceptance
from hsf_finetune.weights.sources.read_source import SourceOptions, find_single_file, read_source
from hsf_finetune.weights.sources.remote import fetch_weights
from hsf_finetune.weights.transfer.class_rules import Derivations

if TYPE_CHECKING:
    from hsf_finetune.weights.sources.http_file import Progress


@dataclass(frozen=True)
class PretrainedWeights:
    """Pretrained weights, before a network takes them.

    Args:
        checkpoint: the weights.
        classes: class of each of their output channels; None where nothing says.
        derive_from: new class -> class or classes of the source that it comes out of.
        origin: what else is known of where they are from.
    """

    checkpoint: Checkpoint
    classes: tuple[str, ...] | None
    derive_from: Derivations
    origin: Mapping[str, Any]


def read_given_weights(
    settings: Settings,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> PretrainedWeights:
    """The weights of `weights.pretrained`, which is a path, an address or a name.

    Raises:
        ConfigError: what the settings say of the weights is not so.
        WeightsError: they cannot be fetched or read, or their scans are prepared in a way that
            this package cannot follow.
    """
    tuning = settings.weights
    name = str(tuning.pretrained)
    if tuning.named:
        require_acceptance(name, tuning.named, tuning.accept_licence)
    remote = fetch_weights(
        name, tuning.named, tuning.checksum, tuning.offline, progress, tuning.file
    )
    for line in remote.lines() if remote else ():
        say(line)
    checkpoint = _read(settings, remote.path if remote else Path(name), checked=bool(remote))
    _check_preprocessing(settings, checkpoint, say)
    if tuning.named:
        checkpoint = _described(checkpoint, tuning.named)
    given = tuning.source_classes or (remote.classes if remote else None)
    classes = checkpoint.classes or (tuple(given) if given else None)
    for note in _notes(settings, checkpoint):
        say(f"  {note}")
    if proof := proof_text(checkpoint):
        checkpoint = replace(checkpoint, origin=checkpoint.origin | {"proof": proof})
    origin = remote.to_dict() if remote else {}
    return PretrainedWeights(checkpoint, classes, dict(tuning.derive_from or {}), origin)


def with_recorded_network(settings: Settings, recorded: Checkpoint | None) -> Settings:
    """The settings with the network that is built: for `models=pretrained` the recorded one.

    Raises:
        ConfigError: `models=pretrained`, and nothing tells which network that is.
    """
    if recorded and not recorded.models and isinstance(settings.models, PretrainedSettings):
        raise unrecognised_network_error(recorded)
    found = (recorded.models, recorded.path) if recorded else (None, None)
    return settings.model_copy(update={"models": resolve_network(settings.models, *found)})


# -------------------------------------------------------------------- internals
def _read(settings: Settings, path: Path, checked: bool) -> Checkpoint:
    tuning = settings.weights
    if tuning.checksum and not checked:
        file = find_single_file(path, tuning.checkpoint)
        check_file(file, Checksum.parse(tuning.checksum), "correct finetuning.checksum")
    options = SourceOptions(
        tuning.checkpoint,
        tuning.use_ema,
        tuning.key_prefix,
        tuning.source_fold,
        tuning.source_orientation,
    )
    return read_source(path, options)


def _check_preprocessing(
    settings: Settings, checkpoint: Checkpoint, say: Callable[[str], None]
) -> None:
    """Refuses weights whose preprocessing cannot be followed, unless the user accepts that."""
    if not checkpoint.unread or settings.preprocessing.rules != "weights":
        return
    if settings.preprocessing.missing == "accept":
        for step in checkpoint.unread:
            say(f"  left out of the preprocessing: {step}")
        return
    raise WeightsError(
        "the weights need scans that are prepared as this package cannot do it",
        file=checkpoint.path,
        found="\n".join(checkpoint.unread),
        expected="steps that docs/weights.md lists",
        fix="preprocessing.missing=accept leaves these steps out; preprocessing=hsf leaves out all",
    )


def _described(checkpoint: Checkpoint, named: NamedWeights) -> Checkpoint:
    """A checkpoint with what the description of its name says, and the file does not."""
    if not checkpoint.models or "inferred" in checkpoint.origin:
        checkpoint = replace(checkpoint, models=named.models.model_dump(mode="json"))
    return replace(checkpoint, preprocessing=checkpoint.preprocessing or named.preprocessing)


def _notes(settings: Settings, checkpoint: Checkpoint) -> Iterator[str]:
    """What a user should know of the weights, and what to cite."""
    tuning, origin = settings.weights, checkpoint.origin
    yield from origin.get("notes", ())
    if isinstance(settings.models, PretrainedSettings) and not tuning.named:
        yield from origin.get("inferred", ())
    if not tuning.named:
        for key, text in (("licence", "licence"), ("citation", "please cite")):
            if origin.get(key):
                yield f"{text}: {origin[key]}"
    if tuning.trust:
        yield "weights.trust is not needed any more: files are read without running code"
