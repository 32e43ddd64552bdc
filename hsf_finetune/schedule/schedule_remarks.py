"""What a user should know of a schedule before it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from hsf_finetune.config.settings import FinetuningSettings
from hsf_finetune.schedule.blocks import BlockNames
from hsf_finetune.schedule.stages import NORMS, Stage
from hsf_finetune.system.console import count_of


def remark_lost_epochs(
    blocks: BlockNames, planned: Sequence[Stage], kept: Sequence[Stage]
) -> list[str]:
    """A remark if `lightning.max_epochs` ends a schedule early; a lost stage counts more."""
    epochs, needed = (sum(stage.epochs for stage in stages) for stages in (kept, planned))
    if epochs == needed:
        return []
    ends = f"lightning.max_epochs={epochs} ends the schedule in stage {len(kept)} of {len(planned)}"
    if len(kept) == len(planned):
        return [f"{ends}, {count_of(needed - epochs, 'epoch')} early"]
    trained: set[str] = set().union(*(stage.rates for stage in kept))
    lost = set().union(*(stage.rates for stage in planned)) - trained
    names = ", ".join(name for name in (*blocks.from_head, NORMS) if name in lost)
    effect = (
        f"{names} never train{'s' if len(lost) == 1 else ''}" if lost else "the others are lost"
    )
    return [
        f"{ends}, so that {effect} (all of it takes {needed} epochs or more, or leave max_epochs out)"
    ]


def remark_long_warmup(stages: Sequence[Stage]) -> list[str]:
    """A remark if rates still rise at the end of a schedule that gives its warm-up in epochs."""
    epochs, rising = sum(stage.epochs for stage in stages), stages[-1].curve.warmup_epochs or 0
    if rising < epochs:
        return []
    return [
        f"finetuning.warmup_epochs={rising}, and there are {count_of(epochs, 'epoch')}: no rate "
        "reaches its peak"
    ]


def remark_idle_drops(stages: Sequence[Stage]) -> list[str]:
    """A remark for each stage that a plateau ends before one can lower its rates."""
    return [
        f"stage {number} ends after {count_of(stage.patience_epochs or 0, 'epoch')} without a "
        f"better Dice, before its rates can fall (finetuning.lr_drop_epochs={stage.curve.drop_epochs})"
        for number, stage in enumerate(stages, start=1)
        if stage.curve.shape == "plateau"
        and stage.curve.final < 1
        and (stage.patience_epochs or math.inf) <= stage.curve.drop_epochs
    ]


def remark_missing_blocks(blocks: BlockNames, tuning: FinetuningSettings) -> list[str]:
    """A remark if a strategy is to train more blocks than the network has."""
    counted = {
        "encoder_first": ("encoder_blocks", tuning.encoder_blocks, blocks.encoders),
        "gradual": ("gradual_top_blocks", tuning.gradual_top_blocks, blocks.from_head[1:]),
    }
    if tuning.chosen_strategy not in counted:
        return []
    name, wanted, those = counted[tuning.chosen_strategy]
    if wanted <= len(those):
        return []
    return [f"finetuning.{name}={wanted}, but there are {len(those)}: {', '.join(those)}"]


def remark_early_end(
    tuning: FinetuningSettings, stages: Sequence[Stage], max_epochs: int
) -> list[str]:
    """A remark if a strategy ends before `lightning.max_epochs`."""
    epochs = sum(stage.epochs for stage in stages)
    if epochs >= max_epochs:
        return []
    return [
        f"lightning.max_epochs={max_epochs}, but {tuning.chosen_strategy} ends after {epochs} "
        f"(finetuning.linear_probe_epochs={max_epochs} makes it longer)"
    ]


def remark_sudden_stages(blocks: BlockNames, stages: Sequence[Stage]) -> list[str]:
    """A remark for each stage after the head alone that trains everything as fast or faster."""
    only_head, everything = {blocks.head}, set(blocks.all)
    return [
        f"stage {number} trains everything, after the head alone, at an equal or higher rate, "
        "which can undo what was learnt before: put a stage with freeze_level: 1 between them, "
        "or lower its lr"
        for number, (before, stage) in enumerate(pairwise(stages), start=2)
        if before.rates.keys() == only_head
        and stage.rates.keys() >= everything
        and max(stage.rates.values()) >= max(before.rates.values())
    ]
