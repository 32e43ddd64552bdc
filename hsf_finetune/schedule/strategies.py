"""Fine-tuning regimes: each is one function from a network's blocks to stages.

A stage of known length lets its rates fall along a cosine. One that a plateau ends
holds them, since its length is not known, unless it is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hsf_finetune.config.settings import (
    FinetuningSettings,
    LightningSettings,
    ModelSettings,
    StageSettings,
)
from hsf_finetune.schedule.blocks import Blocks, HasBlocks
from hsf_finetune.schedule.stages import NORMS, Boost, RateCurve, Schedule, Stage
from hsf_finetune.system.errors import ConfigError

DEFAULT_EPOCHS = 50
"""Epochs of a regime that says nothing of its length."""

DEFAULT_FREQUENCY = 4
"""Epochs from one block to the next of HSF's gradual unfreezing."""

DEFAULT_DECAY = 0.9
"""Layer-wise decay of the rates where everything trains from the start."""

DEFAULT_PHASE_EPOCHS = 15
"""Greatest length of a phase that ends on a plateau."""


@dataclass(frozen=True)
class Request:
    """What a regime is asked for.

    Args:
        blocks: of the network.
        tuning: the `finetuning` group.
        lr: peak learning rate, `models.lr`.
        max_epochs: `lightning.max_epochs`.
    """

    blocks: Blocks
    tuning: FinetuningSettings
    lr: float
    max_epochs: int | None

    @property
    def curve(self) -> RateCurve:
        """Warm-up, then a cosine."""
        return RateCurve(self.tuning.warmup, self.tuning.final_lr_factor)

    @property
    def hold(self) -> RateCurve:
        """Warm-up, then the peak."""
        return RateCurve(self.tuning.warmup, 1.0)

    def at(self, blocks: Sequence[str], factor: float = 1.0) -> dict[str, float]:
        """The same peak rate for all of these blocks."""
        return dict.fromkeys(blocks, self.lr * factor)


def plan(
    anatomy: HasBlocks,
    finetuning: FinetuningSettings,
    models: ModelSettings,
    lightning: LightningSettings,
) -> Schedule:
    """The schedule that the settings ask for.

    Raises:
        ConfigError: the network has no such blocks, or there are too few epochs.
    """
    blocks = Blocks.from_anatomy(anatomy)
    request = Request(blocks, finetuning, models.lr, lightning.max_epochs)
    stages = _within(REGIMES[finetuning.regime](request), lightning.max_epochs)
    factors = _rate_factors(blocks, finetuning)
    stages = [replace(stage, rates=_scaled(stage.rates, factors)) for stage in stages]
    if finetuning.early_stopping_epochs is not None:
        stages[-1] = replace(stages[-1], patience_epochs=finetuning.early_stopping_epochs)
    return Schedule(
        regime=finetuning.regime,
        blocks=blocks.all,
        stages=tuple(stages),
        remarks=tuple(_remarks(blocks, stages)),
    )


# ---------------------------------------------------------------------- regimes
def gradual_unfreezing(request: Request) -> list[Stage]:
    """HSF's gradual unfreezing: block k (1-based) starts to train at epoch k * frequency.

    The head trains from epoch 0 (Howard and Ruder, 2018, unfreeze from the output in
    the same way). `mode` decoder unfreezes from the head inwards, encoder from the input
    inwards, both is decoder, bottleneck, encoder; `depth` says how many blocks.

    Raises:
        ConfigError: the mode has fewer than `depth` blocks.
    """
    blocks, tuning = request.blocks, request.tuning
    mode = tuning.mode or "decoder"
    depth = -1 if tuning.depth is None else tuning.depth
    order = {
        "decoder": blocks.decoders[::-1],
        "encoder": blocks.encoders,
        "both": blocks.from_head[1:],
    }[mode]
    if depth > len(order):
        raise ConfigError(
            f"finetuning.depth={depth} is more than the {len(order)} blocks of mode '{mode}'",
            found=", ".join(order),
            fix=f"finetuning.depth={len(order)} (or -1 for every block)",
        )
    unfreezing = order if depth < 0 else order[:depth]
    lengths = [tuning.unfreeze_frequency or DEFAULT_FREQUENCY] * (len(unfreezing) + 1)
    if request.max_epochs is not None:
        lengths[-1] = max(request.max_epochs - sum(lengths[:-1]), 1)
    return [
        Stage(request.at([blocks.head, *unfreezing[:k]]), length, curve=request.curve)
        for k, length in enumerate(lengths)
    ]


def full(request: Request) -> list[Stage]:
    """Everything trains from the first epoch on."""
    epochs = request.max_epochs or DEFAULT_EPOCHS
    return [Stage(request.at(request.blocks.all), epochs, curve=request.curve)]


def linear(request: Request) -> list[Stage]:
    """A linear probe: the head alone, until validation no longer improves."""
    tuning = request.tuning
    epochs = min(tuning.linear_probe_epochs, request.max_epochs or tuning.linear_probe_epochs)
    rates = request.at([request.blocks.head])
    return [Stage(rates, epochs, tuning.gradual_patience, curve=request.curve)]


def gradual(request: Request) -> list[Stage]:
    """Head, then the blocks next to it as well, then all; each until a plateau.

    Every phase starts from the best weights of the one before.

    Raises:
        ConfigError: there are fewer epochs than phases.
    """
    blocks, tuning = request.blocks, request.tuning
    total = request.max_epochs or 3 * DEFAULT_PHASE_EPOCHS
    if total < 3:
        raise ConfigError(
            f"finetuning=gradual has three phases, and lightning.max_epochs is {total}",
            fix="lightning.max_epochs=3 or more",
        )
    trains = (
        [blocks.head],
        blocks.from_head[: tuning.gradual_top_blocks + 1],
        blocks.from_head,
    )
    lengths = (total // 3, total // 3, total - 2 * (total // 3))
    return [
        Stage(
            request.at(names),
            length,
            tuning.gradual_patience,
            restarts=k > 0,
            carries_best=k > 0,
            curve=request.hold if k < 2 else request.curve,
        )
        for k, (names, length) in enumerate(zip(trains, lengths, strict=True))
    ]


def progressive(request: Request) -> list[Stage]:
    """Decoder and head, then the backbone (encoder and bottleneck) from an epoch on."""
    blocks, tuning = request.blocks, request.tuning
    epochs = request.max_epochs or DEFAULT_EPOCHS
    unfreeze_epoch = tuning.unfreeze_backbone_at_epoch
    if unfreeze_epoch < 0:
        unfreeze_epoch = epochs if tuning.freeze_backbone else 0
    before = Stage(request.at([*blocks.decoders, blocks.head]), unfreeze_epoch, curve=request.curve)
    after = Stage(request.at(blocks.all), max(epochs - unfreeze_epoch, 1), curve=request.curve)
    if unfreeze_epoch == 0:
        return [after]
    return [before] if unfreeze_epoch == epochs else [before, after]


def lpft(request: Request) -> list[Stage]:
    """Linear probing, then fine-tuning of everything at a lower rate (Kumar et al., ICLR 2022)."""
    blocks, tuning = request.blocks, request.tuning
    total = request.max_epochs or DEFAULT_EPOCHS
    probe = min(tuning.linear_probe_epochs, total // 2)
    if probe < 1:
        raise ConfigError(
            "finetuning=lpft has two phases, and lightning.max_epochs is 1",
            fix="lightning.max_epochs=2 or more",
        )
    return [
        Stage(request.at([blocks.head]), probe, curve=request.curve),
        Stage(
            request.at(blocks.all, tuning.lpft_lr_factor),
            total - probe,
            restarts=True,
            carries_best=True,
            curve=request.curve,
        ),
    ]


def encoder_first(request: Request) -> list[Stage]:
    """First encoder blocks, all normalisation layers and the head: for another contrast."""
    blocks, tuning = request.blocks, request.tuning
    names = [*blocks.encoders[: tuning.encoder_blocks], blocks.head, NORMS]
    return [Stage(request.at(names), request.max_epochs or DEFAULT_EPOCHS, curve=request.curve)]


def staged(request: Request) -> list[Stage]:
    """The stages of `finetuning.stages`, one after the other in one run.

    Raises:
        ConfigError: there are none, or one names a block that the network has not.
    """
    wanted = request.tuning.stages
    if not wanted:
        raise ConfigError(
            "finetuning.strategy=staged needs a list in finetuning.stages",
            fix="finetuning=staged brings one that you can change: see conf/finetuning/staged.yaml",
        )
    last = len(wanted) - 1
    return [_stage(request, number, stage, number == last) for number, stage in enumerate(wanted)]


REGIMES: Mapping[str, Callable[[Request], list[Stage]]] = {
    "gradual_unfreezing": gradual_unfreezing,
    "full": full,
    "linear": linear,
    "gradual": gradual,
    "progressive": progressive,
    "lpft": lpft,
    "encoder_first": encoder_first,
    "staged": staged,
}
"""`finetuning.strategy` -> the function that makes its stages."""


# -------------------------------------------------------------------- internals
def _stage(request: Request, number: int, wanted: StageSettings, last: bool) -> Stage:
    blocks = request.blocks
    by_level = {0: ["all"], 1: ["decoder", "head"], 2: ["head"]}
    names = wanted.blocks or by_level[wanted.freeze_level or 0]
    holds = wanted.patience_epochs is not None and not last
    curve = request.hold if holds else request.curve
    if wanted.warmup is not None:
        curve = replace(curve, warmup=wanted.warmup)
    found = blocks.named(names, f"finetuning.stages[{number}].blocks")
    boost = wanted.head_boost
    return Stage(
        dict.fromkeys(found, wanted.lr or request.lr),
        wanted.epochs,
        wanted.patience_epochs,
        restarts=number > 0,
        carries_best=number > 0 and wanted.start_from == "best",
        curve=curve,
        boost=Boost(blocks.head, boost, wanted.head_boost_epochs) if boost else None,
        augmentation=wanted.augmentation,
        augmentation_strength=wanted.augmentation_strength,
    )


def _within(stages: list[Stage], max_epochs: int | None) -> list[Stage]:
    """The stages, cut where `max_epochs` ends."""
    if max_epochs is None:
        return stages
    kept, left = [], max_epochs
    for stage in stages:
        if left > 0:
            kept.append(replace(stage, epochs=min(stage.epochs, left)))
        left -= stage.epochs
    return kept


def _rate_factors(blocks: Blocks, tuning: FinetuningSettings) -> dict[str, float]:
    """Block -> what its rate is multiplied by: layer-wise decay, and the user's factors.

    Layer-wise decay multiplies by `llrd_decay` for each block between a block and the
    head (Howard and Ruder, 2018; Clark et al., 2020).
    """
    decay = tuning.llrd_decay
    if decay is None:
        decay = DEFAULT_DECAY if tuning.regime == "full" else 1.0
    factors = {b: decay**distance for distance, b in enumerate(blocks.from_head)}
    factors[NORMS] = 1.0
    for name, factor in tuning.lr_factors.items():
        for block in blocks.named([name], "finetuning.lr_factors"):
            factors[block] *= factor
    return factors


def _scaled(rates: Mapping[str, float], factors: Mapping[str, float]) -> dict[str, float]:
    return {block: rate * factors[block] for block, rate in rates.items()}


def _remarks(blocks: Blocks, stages: Sequence[Stage]) -> list[str]:
    """What is unusual about the stages."""
    remarks = []
    only_head, everything = {blocks.head}, set(blocks.all)
    for number, (a, b) in enumerate(pairwise(stages), start=1):
        if a.rates.keys() == only_head and b.rates.keys() >= everything and not _gentle(a, b):
            remarks.append(
                f"stage {number + 1} goes from the head alone to everything at an equal or higher "
                "rate, which can undo what was learnt before: put a stage with freeze_level: 1 "
                "between them, or lower its lr"
            )
    return remarks


def _gentle(before: Stage, after: Stage) -> bool:
    return max(after.rates.values()) < max(before.rates.values())
