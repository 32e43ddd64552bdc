"""Fine-tuning strategies: each is one function from a network's blocks to stages.

In a stage of known length the rates fall, along a cosine by default. In one that a plateau
ends they stay at their peak, since its length is not known, unless it is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hsf_finetune.config.settings import (
    FinetuningSettings,
    LightningSettings,
    ModelSettings,
    StageSettings,
)
from hsf_finetune.schedule.blocks import BlockNames
from hsf_finetune.schedule.schedule_remarks import (
    remark_early_end,
    remark_idle_drops,
    remark_long_warmup,
    remark_lost_epochs,
    remark_missing_blocks,
    remark_sudden_stages,
)
from hsf_finetune.schedule.stages import NORMS, RateBoost, RateCurve, Schedule, Stage
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError

DEFAULT_EPOCHS = 50
"""Epochs of a strategy whose settings give no length."""

DEFAULT_FREQUENCY = 4
"""Epochs from one block to the next of HSF's gradual unfreezing."""

DEFAULT_DECAY = 0.9
"""Layer-wise decay of the rates where everything trains from the start."""

DEFAULT_PHASE_EPOCHS = 15
"""Greatest length of a phase that ends on a plateau."""

NNUNET_POWER = 0.9
"""Exponent of a polynomial rate, as nnU-Net's."""

DEFAULT_DROP_EPOCHS, DEFAULT_DROP_FACTOR = 10, 0.1
"""Of rates that fall in steps or on a plateau."""


@dataclass(frozen=True)
class StrategyInputs:
    """What the stages of a strategy follow from.

    Args:
        blocks: of the network.
        tuning: the `finetuning` group.
        lr: peak learning rate, `models.lr`.
        max_epochs: `lightning.max_epochs`.
    """

    blocks: BlockNames
    tuning: FinetuningSettings
    lr: float
    max_epochs: int | None

    @property
    def curve(self) -> RateCurve:
        """Warm-up, then the fall that `finetuning.lr_schedule` names."""
        return self.tuning_curve(self.tuning.final_lr_factor)

    @property
    def flat_curve(self) -> RateCurve:
        """Warm-up, then the peak."""
        return self.tuning_curve(1.0)

    def tuning_curve(self, final: float) -> RateCurve:
        """The curve of the settings, down to `final`."""
        tuning = self.tuning
        return RateCurve(
            tuning.warmup,
            final,
            tuning.lr_schedule,
            tuning.lr_power or NNUNET_POWER,
            tuning.lr_drop_epochs or DEFAULT_DROP_EPOCHS,
            tuning.lr_drop_factor or DEFAULT_DROP_FACTOR,
            tuning.warmup_epochs,
        )

    def rates(self, blocks: Sequence[str], factor: float = 1.0) -> dict[str, float]:
        """The same peak rate, `factor` times `lr`, for all of these blocks."""
        return dict.fromkeys(blocks, self.lr * factor)


def plan_schedule(
    blocks: BlockNames,
    finetuning: FinetuningSettings,
    models: ModelSettings,
    lightning: LightningSettings,
) -> Schedule:
    """The schedule that the settings describe, for the blocks of a network.

    Raises:
        ConfigError: the network has no such blocks, or there are too few epochs.
    """
    inputs = StrategyInputs(blocks, finetuning, models.lr, lightning.max_epochs)
    stages = STRATEGIES[finetuning.chosen_strategy](inputs)
    remarks = remark_missing_blocks(blocks, finetuning)
    if lightning.max_epochs is not None:
        planned, stages = stages, _shorten(stages, lightning.max_epochs)
        remarks += remark_lost_epochs(blocks, planned, stages)
        remarks += remark_early_end(finetuning, stages, lightning.max_epochs)
    factors = _rate_factors(blocks, finetuning)
    stages = [
        replace(stage, rates={block: rate * factors[block] for block, rate in stage.rates.items()})
        for stage in stages
    ]
    if finetuning.early_stopping_epochs is not None:
        stages[-1] = replace(stages[-1], patience_epochs=finetuning.early_stopping_epochs)
    remarks += remark_long_warmup(stages) + remark_idle_drops(stages)
    return Schedule(
        strategy=finetuning.chosen_strategy,
        blocks=blocks.all,
        stages=tuple(stages),
        remarks=(*remarks, *remark_sudden_stages(blocks, stages)),
    )


def hsf(inputs: StrategyInputs) -> list[Stage]:
    """HSF's gradual unfreezing: block k (1-based) starts to train at epoch k * frequency.

    The head trains from epoch 0 (Howard and Ruder, 2018, unfreeze from the output in
    the same way). `mode` decoder unfreezes from the head inwards, encoder from the input
    inwards, both is decoder, bottleneck, encoder; `depth` says how many blocks.

    Raises:
        ConfigError: the mode has fewer than `depth` blocks.
    """
    blocks, tuning = inputs.blocks, inputs.tuning
    mode = tuning.mode or "decoder"
    depth = -1 if tuning.depth is None else tuning.depth
    order = {
        "decoder": blocks.decoders[::-1],
        "encoder": blocks.encoders,
        "both": blocks.from_head[1:],
    }[mode]
    if depth > len(order):
        raise ConfigError(
            f"finetuning.depth={depth} is more than the {count_of(len(order), 'block')} of mode "
            f"'{mode}'",
            found=", ".join(order),
            fix=f"finetuning.depth={len(order)} (or -1 for every block)",
        )
    unfreezing = order if depth < 0 else order[:depth]
    lengths = [tuning.unfreeze_frequency or DEFAULT_FREQUENCY] * (len(unfreezing) + 1)
    if inputs.max_epochs is not None:
        lengths[-1] = max(inputs.max_epochs - sum(lengths[:-1]), 1)
    return [
        Stage(inputs.rates([blocks.head, *unfreezing[:k]]), length, curve=inputs.curve)
        for k, length in enumerate(lengths)
    ]


def full(inputs: StrategyInputs) -> list[Stage]:
    """Everything trains from the first epoch on."""
    epochs = inputs.max_epochs or DEFAULT_EPOCHS
    return [Stage(inputs.rates(inputs.blocks.all), epochs, curve=inputs.curve)]


def linear(inputs: StrategyInputs) -> list[Stage]:
    """A linear probe: the head alone, until validation no longer improves."""
    tuning = inputs.tuning
    epochs = min(tuning.linear_probe_epochs, inputs.max_epochs or tuning.linear_probe_epochs)
    rates = inputs.rates([inputs.blocks.head])
    return [Stage(rates, epochs, tuning.gradual_patience, curve=inputs.curve)]


def gradual(inputs: StrategyInputs) -> list[Stage]:
    """Head, then the blocks next to it as well, then all; each until a plateau.

    Every phase starts from the best weights of the one before.

    Raises:
        ConfigError: there are fewer epochs than phases.
    """
    blocks, tuning = inputs.blocks, inputs.tuning
    total = inputs.max_epochs or 3 * DEFAULT_PHASE_EPOCHS
    if total < 3:
        raise ConfigError(
            f"finetuning=gradual has three phases, and lightning.max_epochs is {total}",
            fix="lightning.max_epochs=3 or more",
        )
    top = blocks.from_head[: tuning.gradual_top_blocks + 1]
    trains = ([blocks.head], top, blocks.from_head)
    lengths = (total // 3, total // 3, total - 2 * (total // 3))
    return [
        Stage(
            inputs.rates(names),
            length,
            tuning.gradual_patience,
            restarts=k > 0,
            carries_best=k > 0,
            curve=inputs.flat_curve if k < 2 else inputs.curve,
        )
        for k, (names, length) in enumerate(zip(trains, lengths, strict=True))
    ]


def progressive(inputs: StrategyInputs) -> list[Stage]:
    """Decoder and head, then the backbone (encoder and bottleneck) from an epoch on."""
    blocks, tuning = inputs.blocks, inputs.tuning
    epochs = inputs.max_epochs or DEFAULT_EPOCHS
    frozen = tuning.unfreeze_backbone_at_epoch
    if frozen < 0:
        frozen = epochs if tuning.freeze_backbone else 0
    before = Stage(inputs.rates([*blocks.decoders, blocks.head]), frozen, curve=inputs.curve)
    after = Stage(inputs.rates(blocks.all), max(epochs - frozen, 1), curve=inputs.curve)
    if frozen == 0:
        return [after]
    to_the_end = tuning.unfreeze_backbone_at_epoch < 0 or inputs.max_epochs is None
    return [before] if frozen == epochs and to_the_end else [before, after]


def lpft(inputs: StrategyInputs) -> list[Stage]:
    """Linear probing, then fine-tuning of everything at a lower rate (Kumar et al., ICLR 2022)."""
    blocks, tuning = inputs.blocks, inputs.tuning
    total = inputs.max_epochs or DEFAULT_EPOCHS
    probe = min(tuning.linear_probe_epochs, total // 2)
    if probe < 1:
        raise ConfigError(
            "finetuning=lpft has two phases, and lightning.max_epochs is 1",
            fix="lightning.max_epochs=2 or more",
        )
    rates, curve = inputs.rates(blocks.all, tuning.lpft_lr_factor), inputs.curve
    return [
        Stage(inputs.rates([blocks.head]), probe, curve=curve),
        Stage(rates, total - probe, restarts=True, carries_best=True, curve=curve),
    ]


def encoder_first(inputs: StrategyInputs) -> list[Stage]:
    """First encoder blocks, all normalisation layers and the head: for another contrast."""
    blocks, tuning = inputs.blocks, inputs.tuning
    names = [*blocks.encoders[: tuning.encoder_blocks], blocks.head, NORMS]
    return [Stage(inputs.rates(names), inputs.max_epochs or DEFAULT_EPOCHS, curve=inputs.curve)]


def staged(inputs: StrategyInputs) -> list[Stage]:
    """The stages of `finetuning.stages`, one after the other in one run.

    The last one is longer where `lightning.max_epochs` is more than their sum.

    Raises:
        ConfigError: there are none, or the network has no block of some name.
    """
    wanted = inputs.tuning.stages
    if not wanted:
        raise ConfigError(
            "finetuning.strategy=staged needs a list in finetuning.stages",
            fix="finetuning=staged has one that you can change: see conf/finetuning/staged.yaml",
        )
    *first, last = [_user_stage(inputs, number, stage) for number, stage in enumerate(wanted)]
    missing = (inputs.max_epochs or 0) - sum(stage.epochs for stage in (*first, last))
    return [*first, replace(last, epochs=last.epochs + max(missing, 0))]


STRATEGIES: Mapping[str, Callable[[StrategyInputs], list[Stage]]] = {
    "hsf": hsf,
    "full": full,
    "linear": linear,
    "gradual": gradual,
    "progressive": progressive,
    "lpft": lpft,
    "encoder_first": encoder_first,
    "staged": staged,
}
"""`finetuning.strategy` -> the function that makes its stages."""


def _user_stage(inputs: StrategyInputs, number: int, wanted: StageSettings) -> Stage:
    blocks, last = inputs.blocks, number == len(inputs.tuning.stages) - 1
    by_level = {0: ["all"], 1: ["decoder", "head"], 2: ["head"]}
    names = wanted.blocks or by_level[wanted.freeze_level or 0]
    has_open_end = wanted.patience_epochs is not None and not last
    curve = inputs.flat_curve if has_open_end else inputs.curve
    if wanted.warmup is not None:
        curve = replace(curve, warmup=wanted.warmup, warmup_epochs=None)
    selected = blocks.select(names, f"finetuning.stages[{number}].blocks")
    boost = wanted.head_boost
    return Stage(
        dict.fromkeys(selected, wanted.lr or inputs.lr),
        wanted.epochs,
        wanted.patience_epochs,
        restarts=number > 0,
        carries_best=number > 0 and wanted.start_from == "best",
        curve=curve,
        boost=RateBoost(blocks.head, boost, wanted.head_boost_epochs) if boost else None,
        augmentation=wanted.augmentation,
        augmentation_strength=wanted.augmentation_strength,
    )


def _shorten(stages: list[Stage], max_epochs: int) -> list[Stage]:
    """The stages, cut off after `max_epochs`."""
    kept, left = [], max_epochs
    for stage in stages:
        if left > 0:
            kept.append(replace(stage, epochs=min(stage.epochs, left)))
        left -= stage.epochs
    return kept


def _rate_factors(blocks: BlockNames, tuning: FinetuningSettings) -> dict[str, float]:
    """Block -> factor of its rate: layer-wise decay times the user's factors.

    Layer-wise decay multiplies by `llrd_decay` for each block between a block and the
    head (Howard and Ruder, 2018; Clark et al., 2020).
    """
    decay = tuning.llrd_decay
    if decay is None:
        decay = DEFAULT_DECAY if tuning.chosen_strategy == "full" else 1.0
    factors = {b: decay**distance for distance, b in enumerate(blocks.from_head)}
    factors[NORMS] = 1.0
    for name, factor in tuning.lr_factors.items():
        for block in blocks.select([name], "finetuning.lr_factors"):
            factors[block] *= factor
    return factors
