"""The schedule as a table for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rich.table import Table

from hsf_finetune.schedule.display.timeline import title_text
from hsf_finetune.schedule.stages import NORMS, RateCurve, Schedule, Stage
from hsf_finetune.system.console import TitledTable, count_of


@dataclass(frozen=True)
class BlockSizes:
    """Numbers of parameters.

    Args:
        blocks: block -> all of its parameters.
        norms: block -> those of its normalisation layers.
    """

    blocks: Mapping[str, int]
    norms: Mapping[str, int]

    def trainable(self, names: Collection[str]) -> int:
        """Parameters that train if these blocks (and `NORMS`) do."""
        count = sum(self.blocks[name] for name in names if name != NORMS)
        if NORMS in names:
            count += sum(n for block, n in self.norms.items() if block not in names)
        return count

    def trainable_share(self, names: Collection[str]) -> float:
        """Share of all parameters that trains if these blocks (and `NORMS`) do."""
        return self.trainable(names) / sum(self.blocks.values())


def schedule_table(schedule: Schedule, sizes: BlockSizes) -> Table:
    """One row per stage: epochs, blocks, rates, trainable parameters and share, what ends it.

    Args:
        schedule: what to show.
        sizes: of the blocks.
    """
    table = TitledTable(f"Schedule: {title_text(schedule)}", "\n".join(_caption(schedule)))
    table.add_column("epochs", no_wrap=True)
    table.add_column("starts to train (peak learning rate)")
    table.add_column("trains in all")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for index, stage in enumerate(schedule.stages):
        first = schedule.first_epoch(index)
        whole = set(schedule.blocks) <= stage.rates.keys()
        table.add_row(
            f"{first}-{first + stage.length - 1}",
            "\n".join([*_starting_blocks(schedule, index), *_stage_rules(stage)]),
            "everything" if whole else ", ".join(_in_order(schedule, stage.rates)),
            f"{sizes.trainable(stage.rates):,}",
            f"{sizes.trainable_share(stage.rates):.1%}",
        )
    return table


def _in_order(schedule: Schedule, blocks: Mapping[str, float]) -> list[str]:
    return sorted(blocks, key=[*reversed(schedule.blocks), NORMS].index)


def _starting_blocks(schedule: Schedule, index: int) -> list[str]:
    """Blocks whose rate warms up in a stage, by peak rate: `decoder1, decoder2 (0.001)`."""
    stage = schedule.stages[index]
    before = {} if index == 0 or stage.restarts else schedule.stages[index - 1].rates
    by_rate: dict[str, list[str]] = {}
    for block in _in_order(schedule, stage.rates):
        if block not in before:
            by_rate.setdefault(f"{stage.rates[block]:.3g}", []).append(block)
    everything = set(schedule.blocks)
    return [
        f"{'everything' if everything <= set(names) else ', '.join(names)} ({rate})"
        for rate, names in by_rate.items()
    ]


def _stage_rules(stage: Stage) -> list[str]:
    """The particular rules of a stage, a line each."""
    lines = []
    if stage.carries_best:
        lines.append("from the best weights so far")
    if stage.patience_epochs is not None:
        epochs = count_of(stage.patience_epochs, "epoch")
        lines.append(f"ends after {epochs} without a better Dice")
    if boost := stage.boost:
        epochs = count_of(boost.epochs, "epoch")
        lines.append(f"{boost.block} at {boost.factor:g} times its rate for {epochs}")
    if stage.augmentation or stage.augmentation_strength != 1:
        strength = f", strength {stage.augmentation_strength:g}"
        name = stage.augmentation or "as in the run"
        lines.append(f"augmentation {name}{strength if stage.augmentation_strength != 1 else ''}")
    return lines


def _fall(curve: RateCurve) -> str:
    epochs, least = count_of(curve.drop_epochs, "epoch"), f"to {curve.final:g} of its peak"
    when = {"step": f"every {epochs}", "plateau": f"whenever Dice has not improved for {epochs}"}
    if curve.shape in when:
        drop = f"is multiplied by {curve.drop_factor:g} {when[curve.shape]}"
        return f"{drop}, down {least}" if curve.final else drop
    along = "a cosine" if curve.shape == "cosine" else f"(1 - time) ^ {curve.power:g}"
    return f"falls along {along} {least}"


def _caption(schedule: Schedule) -> list[str]:
    curve = schedule.stages[-1].curve
    has_open_stages = any(stage.patience_epochs for stage in schedule.stages[:-1])
    over = f"{curve.warmup:.0%} of the epochs for which its block trains"
    if curve.warmup_epochs is not None:
        over = count_of(curve.warmup_epochs, "epoch")
    lines = [
        f"A rate warms up over {over}, then {_fall(curve)}"
        + ("; it stays at its peak in stages that a plateau ends." if has_open_stages else ".")
    ]
    if schedule.never_unfrozen:
        norms = " (except normalisation)" if NORMS in schedule.unfreeze_epoch else ""
        lines.append(f"Frozen to the end{norms}: {', '.join(schedule.never_unfrozen)}.")
    return lines + [f"Note: {remark}." for remark in schedule.remarks]
