"""The `weights` group: where the weights come from, and what is taken from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hsf_finetune.config.settings.base_settings import Group, Probability, Text
from hsf_finetune.config.settings.network_choice import NetworkSettings
from hsf_finetune.config.settings.preprocessing_settings import Preprocessing

OTHER_NAMES = {
    "external_weights_path": "pretrained",
    "external_weights_key_prefix": "key_prefix",
}
"""Names that PyTorch Connectomics has for settings of this group."""


class NamedWeights(Group):
    """Published weights that have a name for `weights.pretrained`: a file of `weights/`."""

    name: str
    """Full name, with the version."""
    url: str | None = None
    """An https URL, or `hf://owner/repo/path[@revision]`; None where `weights.file` has to say."""
    checksum: Text | None = None
    """The checksum of the file, such as `sha256:...`; None where nobody has published one."""
    licence: str
    """Licence of the weights."""
    conditions: list[str] = []
    """What the licence forbids or demands beyond credit, which has to be accepted once."""
    classes: Annotated[list[str], Field(min_length=2)] | None = None
    """Class of each output channel, background first; None where the file says, or has none."""
    channels: Annotated[list[str], Field(min_length=1)]
    """What each input channel shows."""
    models: NetworkSettings
    """The network they belong to."""
    preprocessing: Preprocessing | None = None
    """How scans are prepared for them; None where the file says."""
    load: Literal["all", "trunk", "encoder"] = "all"
    """What of them is loaded."""
    key_prefix: Annotated[str, Field(min_length=1)] | None = None
    """Beginning of the names of the network's tensors in the file; None finds it."""
    key_map: dict[Text, str] | None = None
    """Tensor name of the file, or pattern, or prefix with a dot -> the network's."""
    source: str
    """Page that describes them."""
    citation: str
    """What to cite."""

    def completed(self, weights: WeightsSettings) -> WeightsSettings:
        """Settings that name these weights, with what is known of them where nothing is given."""
        known: dict[str, Any] = {
            key: getattr(self, key)
            for key in ("load", "key_prefix", "key_map")
            if is_default(key, getattr(weights, key))
        }
        return weights.model_copy(update=known | {"named": self})


class WeightsSettings(Group):
    """Where the weights come from, and what is taken from them."""

    pretrained: str | None = None
    """Checkpoint, run folder, URL, `hf://...`, name of a file of `weights/`, `demo`, or
    `none` to start from random weights."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of a run folder; of an nnU-Net it is the final one."""
    key_prefix: Annotated[str, Field(min_length=1)] | None = None
    """Beginning of the names of the network's tensors in the file; None finds it."""
    trust: list[str] = []
    """Has no effect: every file is read without loading classes. Kept for older settings."""
    checksum: Text | None = None
    """The checksum that the file of the weights must have, such as `sha256:...`."""
    file: str | None = None
    """The file or folder of the weights that `pretrained` names, where it is on this machine."""
    accept_licence: bool = False
    """Accept the conditions that the licence of named weights has; kept for later runs."""
    offline: bool = False
    """Take URLs, `hf://` and names from the cache only, without internet access."""
    named: NamedWeights | None = None
    """The file of `weights/` that `pretrained` names; found by the configuration."""
    source_classes: list[str] | None = None
    """Class of each output channel, background first, for checkpoints without class names."""
    source_fold: int | Literal["all"] | None = None
    """Which fold of an nnU-Net; None is that of all cases, or the first."""
    source_orientation: Annotated[str, Field(pattern="^[RLAPSI]{3}$")] = "RAS"
    """Orientation of the images that an nnU-Net was trained on, which it does not record."""
    use_ema: bool = True
    """Use averaged weights if the checkpoint has them."""
    derive_from: dict[str, str | list[str]] | None = None
    """New class -> class (or classes) of the pretrained model it comes out of."""
    head: Literal["transfer", "copy", "fresh"] = "transfer"
    """Output channels by class name, copied by position, or as initialised."""
    input_channels: Literal["mean", "zero"] | dict[Text, Text] | None = None
    """Weights of input channels without a counterpart; or channel -> one of the
    checkpoint's, `mean` or `zero`."""
    source_channels: list[Text] | None = None
    """Name of each input channel, for checkpoints without them."""
    load: Literal["all", "trunk", "encoder"] = "all"
    """Everything, all but the head, or the encoder alone; the rest starts fresh."""
    match: Literal["name", "order"] = "name"
    """Whether tensors are paired by name, or by order and shape."""
    key_map: dict[Text, str] | None = None
    """Tensor name of the checkpoint, or pattern, or prefix with a dot -> the network's."""
    min_loaded: Probability = 1.0
    """Smallest share of what `load` names, but the head, that must load: of its tensors, and
    of its parameters."""
    allow_mismatch: list[Text] = []
    """Patterns of tensors that may stay without a counterpart, and of settings that may
    differ from those of the weights."""

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, given: Any) -> Any:
        """Takes what PyTorch Connectomics calls a setting for ours."""
        if not isinstance(given, dict):
            return given
        known = {key: value for key, value in given.items() if key not in OTHER_NAMES}
        for other, ours in OTHER_NAMES.items():
            value = given.get(other)
            if value is None:
                continue
            if known.get(ours) not in (None, value):
                raise ValueError(f"{other}={value} contradicts {ours}={known[ours]}; give one")
            known[ours] = value
        return known

    @model_validator(mode="after")
    def _head_is_loaded(self) -> WeightsSettings:
        if self.load != "all" and (self.derive_from or self.head == "copy"):
            key = "derive_from" if self.derive_from else "head=copy"
            raise ValueError(f"{key} needs load=all: with load={self.load} the head starts fresh")
        return self


WEIGHTS_KEYS = (*WeightsSettings.model_fields, *OTHER_NAMES)
"""Keys of the group, which `finetuning` may hold as well."""


def is_default(key: str, value: object) -> bool:
    """Whether a key of the group has its default value."""
    field = WeightsSettings.model_fields.get(key)
    return value == (field.default if field else None)


def move_to_weights(given: Any, rank: Callable[[str], int] = lambda path: 0) -> Any:
    """Moves the keys about weights from `finetuning`, where HSF has them, to `weights`.

    Args:
        given: all settings, before they are validated.
        rank: path of a setting -> how directly it was given: 2 by its own name, which counts
            more than 1, by its group's, or 0.

    Raises:
        ValueError: `finetuning` and `weights` contradict each other.
    """
    tuning = given.get("finetuning") if isinstance(given, Mapping) else None
    if not isinstance(tuning, Mapping) or not any(key in tuning for key in WEIGHTS_KEYS):
        return given
    weights = given.get("weights") or {}
    united = dict(weights if isinstance(weights, Mapping) else weights.model_dump())
    for key in (key for key in WEIGHTS_KEYS if key in tuning):
        value, other = tuning[key], united.get(key)
        ours, theirs = rank(f"finetuning.{key}"), rank(f"weights.{key}")
        if key not in united or (theirs < 2 and is_default(key, other)):
            united[key] = _merged(other, value, ours)
        elif (ours < 2 and is_default(key, value)) or ours < theirs:
            united[key] = _merged(value, other, theirs)
        elif ours > theirs:
            united[key] = _merged(other, value, ours)
        elif value != other:
            raise ValueError(
                f"finetuning.{key}={value} contradicts weights.{key}={other}; give one of them"
            )
    rest = {key: value for key, value in tuning.items() if key not in WEIGHTS_KEYS}
    return {**given, "finetuning": rest, "weights": united}


def _merged(below: object, above: object, rank: int) -> object:
    """The value that counts; a mapping of the command line adds to one of a file, as in Hydra."""
    both = isinstance(below, Mapping) and isinstance(above, Mapping) and rank == 2
    return {**below, **above} if both else above  # type: ignore[dict-item]
