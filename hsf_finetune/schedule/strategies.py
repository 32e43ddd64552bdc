"""Fine-tuning regimes: each is one function from a network's blocks to a Schedule."""

from __future__ import annotations

from hsf_finetune.errors import ConfigError
from hsf_finetune.schedule.schedule import HasBlocks, RateCurve, Schedule
from hsf_finetune.settings import FinetuningSettings, LightningSettings, ModelSettings

DEFAULT_FULL_EPOCHS = 50
"""Epochs of a regime that has no thaws to derive a length from."""


def plan(
    anatomy: HasBlocks,
    finetuning: FinetuningSettings,
    models: ModelSettings,
    lightning: LightningSettings,
) -> Schedule:
    """The schedule that the settings ask for."""
    if finetuning.strategy == "full":
        thaw = dict.fromkeys(block_names(anatomy), 0)
        epochs = lightning.max_epochs or DEFAULT_FULL_EPOCHS
    else:
        thaw = gradual_unfreezing(
            anatomy, finetuning.mode, finetuning.depth, finetuning.unfreeze_frequency
        )
        epochs = lightning.max_epochs or len(thaw) * finetuning.unfreeze_frequency
    head = anatomy.head.name
    return Schedule(
        blocks=block_names(anatomy),
        thaw_epoch=thaw,
        peak_rate={
            block: models.lr * (finetuning.head_lr_factor if block == head else 1.0)
            for block in thaw
        },
        max_epochs=epochs,
        curve=RateCurve(finetuning.warmup, finetuning.final_lr_factor),
        regime=finetuning.strategy,
    )


def gradual_unfreezing(anatomy: HasBlocks, mode: str, depth: int, frequency: int) -> dict[str, int]:
    """HSF's gradual unfreezing: block k (1-based) starts to train at epoch k * frequency.

    The head trains from epoch 0 (Howard and Ruder, 2018, thaw from the output in
    the same way).

    Args:
        anatomy: the network's blocks.
        mode: `decoder` thaws from the head inwards, `encoder` from the input
            inwards, `both` is decoder, bottleneck, encoder.
        depth: how many blocks thaw; -1 is every block of the mode.
        frequency: epochs between two thaws, at least 1.

    Returns:
        Block name -> 0-based epoch, in order of the thaw.

    Raises:
        ConfigError: the mode has fewer than `depth` blocks.
    """
    decoders = [block.name for block in reversed(anatomy.decoders)]
    encoders = [block.name for block in anatomy.encoders]
    order = {
        "decoder": decoders,
        "encoder": encoders,
        "both": [*decoders, anatomy.bottleneck.name, *reversed(encoders)],
    }[mode]
    if depth > len(order):
        raise ConfigError(
            f"finetuning.depth={depth} is more than the {len(order)} blocks of mode '{mode}'",
            found=", ".join(order),
            fix=f"finetuning.depth={len(order)} (or -1 for every block)",
        )
    thawing = order if depth < 0 else order[:depth]
    return {anatomy.head.name: 0} | {b: (k + 1) * frequency for k, b in enumerate(thawing)}


def block_names(anatomy: HasBlocks) -> tuple[str, ...]:
    """Every block's name, from the input to the output."""
    blocks = [*anatomy.encoders, anatomy.bottleneck, *anatomy.decoders, anatomy.head]
    return tuple(block.name for block in blocks)
