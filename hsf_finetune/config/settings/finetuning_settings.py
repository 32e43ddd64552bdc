"""The `finetuning` group: where the weights come from, and which part trains when."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hsf_finetune.config.settings.base_settings import Group, Positive, Probability, Text, Whole
from hsf_finetune.config.settings.network_choice import NetworkSettings


class NamedWeights(Group):
    """Published weights that `finetuning.pretrained` knows by name: a file of `weights/`."""

    name: str
    """What they are called in full, with the version."""
    url: str
    """An https URL, or `hf://owner/repo/path[@revision]`."""
    checksum: Text
    """What the file must come to, such as `sha256:...`."""
    licence: str
    """Under which one may use them."""
    classes: Annotated[list[str], Field(min_length=2)]
    """Class of each output channel, background first."""
    channels: Annotated[list[str], Field(min_length=1)]
    """What each input channel shows."""
    models: NetworkSettings
    """The network they belong to."""
    source: str
    """Page that describes them."""
    citation: str
    """What to cite."""


class StageSettings(Group):
    """One stage of `finetuning=staged`."""

    epochs: Whole
    """Length, or greatest length where there is a patience."""
    patience_epochs: Whole | None = None
    """End the stage after so many epochs without a better validation Dice."""
    freeze_level: Literal[0, 1, 2] | None = None
    """2 trains the head, 1 decoder and head, 0 everything."""
    blocks: list[str] | None = None
    """What trains, by name, in place of `freeze_level`."""
    lr: Positive | None = None
    """Peak learning rate; None is `models.lr`."""
    warmup: Probability | None = None
    """Share of the stage in which the rate rises; None is `finetuning.warmup`."""
    augmentation: str | None = None
    """Preset of the `augmentation` group; None is that of the run."""
    augmentation_strength: Annotated[float, Field(ge=0)] = 1.0
    """What the probability of each random change is multiplied by."""
    head_boost: Positive | None = None
    """Factor of the head's rate in the first epochs of the stage."""
    head_boost_epochs: Whole = 2
    """For how many epochs."""
    start_from: Literal["best", "last"] = "best"
    """Weights of the stage before: of its best epoch, or of its last."""

    @model_validator(mode="after")
    def _one_way_to_say_what_trains(self) -> StageSettings:
        if (self.freeze_level is None) == (self.blocks is None):
            raise ValueError("give either freeze_level or blocks")
        return self


OTHER_NAMES = {
    "external_weights_path": "pretrained",
    "external_weights_key_prefix": "key_prefix",
}
"""Names that PyTorch Connectomics has for settings of this group."""


class FinetuningSettings(Group):
    """Where the weights come from, and which part trains when."""

    strategy: (
        Literal[
            "full",
            "gradual_unfreezing",
            "linear",
            "gradual",
            "progressive",
            "staged",
            "lpft",
            "encoder_first",
        ]
        | None
    ) = None
    """The regime: which part trains when; None is that of `regime`."""
    mode: Literal["encoder", "decoder", "both"] | None = None
    """gradual_unfreezing: which side of the network unfreezes, from which end; None is decoder."""
    depth: Annotated[int, Field(ge=-1)] | None = None
    """gradual_unfreezing: blocks that unfreeze beside the head; None or -1 is every one of the mode."""
    unfreeze_frequency: Whole | None = None
    """gradual_unfreezing: epochs from one block to the next; None is 4."""
    out_channels: Annotated[int, Field(ge=2)] | None = None
    """Output channels, background included; None follows from the labels."""
    pretrained: str | None = None
    """Checkpoint, run folder, URL, `hf://...`, name of a file of `weights/`, `demo`, or
    `none` to start from random weights."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of a run folder."""
    key_prefix: Annotated[str, Field(min_length=1)] | None = None
    """What the names of the network's tensors begin with in the file; None finds it."""
    trust: list[str] = []
    """Functions and classes that this file may load beside tensors and plain data."""
    checksum: Text | None = None
    """What the file of the weights must come to, such as `sha256:...`."""
    offline: bool = False
    """Take what comes from the network from the cache alone."""
    named: NamedWeights | None = None
    """The file of `weights/` that `pretrained` names; found by the configuration."""
    source_classes: list[str] | None = None
    """Class of each output channel of a checkpoint that does not say, background first."""
    source_fold: int | Literal["all"] | None = None
    """Which fold of an nnU-Net; None is that of all cases, or the first."""
    source_orientation: Annotated[str, Field(pattern="^[RLAPSI]{3}$")] = "RAS"
    """How the images lay that an nnU-Net was trained on, which it does not say."""
    use_ema: bool = True
    """Averaged weights where the checkpoint has them, or the raw ones."""
    derive_from: dict[str, str | list[str]] | None = None
    """New class -> class (or classes) of the pretrained model it comes out of."""
    head: Literal["transfer", "copy", "fresh"] = "transfer"
    """Output channels by class name, copied by position, or as initialised."""
    input_channels: Literal["mean", "zero"] | dict[Text, Text] | None = None
    """What becomes of input channels without a counterpart; or channel -> one of the
    checkpoint's, `mean` or `zero`."""
    source_channels: list[Text] | None = None
    """Name of each input channel of a checkpoint that does not say."""
    match: Literal["name", "order"] = "name"
    """Whether tensors are paired by name, or by order and shape."""
    key_map: dict[Text, str] | None = None
    """Tensor name of the checkpoint, or prefix that ends in a dot -> the network's."""
    min_loaded: Probability = 0.9
    """Smallest share of the trunk (its tensors, and its parameters) that must load."""
    lr_factors: dict[str, Positive] = {"head": 10.0}
    """Block (or `encoder`, `decoder`, `backbone`, `norms`) -> factor of its learning rate."""
    llrd_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Layer-wise decay: factor of the rate for each block farther from the head; None is 0.9
    where everything trains from the start (full), and 1 elsewhere."""
    warmup: Probability = 0.1
    """Share of a block's training time in which its rate rises."""
    final_lr_factor: Probability = 0.0
    """Where the cosine ends, as a share of the peak rate."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.99
    """Decay of the averaged weights; None trains without."""
    early_stopping_epochs: Whole | None = None
    """Epochs without a better validation Dice that end the last stage, and the run."""
    budget: Literal["auto", "validation", "fixed"] = "auto"
    """Whether validation picks the best epoch and ends stages, or every stage has its whole
    length and the last weights are taken; `auto` is fixed below `datasets.few_subjects`."""
    linear_probe_epochs: Whole = 10
    """linear, lpft: most epochs of the head alone."""
    gradual_patience: Whole = 3
    """linear, gradual: epochs without a better validation Dice that end a stage."""
    gradual_top_blocks: Whole = 2
    """gradual: blocks next to the head that train with it in the second stage."""
    freeze_backbone: bool = True
    """progressive: whether encoder and bottleneck start frozen."""
    unfreeze_backbone_at_epoch: Annotated[int, Field(ge=-1)] = -1
    """progressive: epoch in which they unfreeze, whatever `freeze_backbone` says; -1 never."""
    lpft_lr_factor: Positive = 0.3
    """lpft: the rate of everything as a share of the head's before."""
    encoder_blocks: Whole = 2
    """encoder_first: how many encoder blocks train, counted from the input."""
    stages: list[StageSettings] = []
    """staged: what trains, one stage after the other."""
    regularise: Literal["l2sp"] | None = None
    """Pull the weights towards where they started, in place of towards 0."""
    l2sp_strength: Annotated[float, Field(ge=0)] = 0.1
    """How strongly: the share of the distance that a step at rate 1 takes back."""
    divergence_share: Positive | None = 0.2
    """Warn if the validation loss of the first epochs exceeds the pretrained model's by more."""

    @property
    def regime(self) -> str:
        """The strategy: HSF's gradual unfreezing where one of its settings is given, else full."""
        gradual = any(value is not None for value in self._of_gradual_unfreezing().values())
        return self.strategy or ("gradual_unfreezing" if gradual else "full")

    def _of_gradual_unfreezing(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("mode", "depth", "unfreeze_frequency")}

    @model_validator(mode="after")
    def _no_setting_is_ignored(self) -> FinetuningSettings:
        given = [name for name, value in self._of_gradual_unfreezing().items() if value is not None]
        if given and self.regime != "gradual_unfreezing":
            raise ValueError(
                f"{' and '.join(given)} would be ignored: gradual unfreezing knows them "
                f"(finetuning=hsf), and this is strategy '{self.strategy}'"
            )
        return self

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
