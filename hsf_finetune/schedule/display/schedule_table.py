"""The schedule as a table for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rich.table import Table

from hsf_finetune.schedule.stages import NORMS, Schedule, Stage
from hsf_finetune.system import console


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters.

    Args:
        blocks: block -> all of it.
        norms: block -> its normalisation layers.
    """

    blocks: Mapping[str, int]
    norms: Mapping[str, int]

    def trained(self, names: Collection[str]) -> int:
        """Parameters that train if these blocks (and `NORMS`) do."""
        count = sum(self.blocks[name] for name in names if name != NORMS)
        if NORMS in names:
            count += sum(n for block, n in self.norms.items() if block not in names)
        return count

    def share(self, names: Collection[str]) -> float:
        """Their share of all parameters."""
        return self.trained(names) / sum(self.blocks.values())


def schedule_table(schedule: Schedule, sizes: Sizes) -> Table:
    """One row per stage: epochs, blocks, rates, trainable parameters and share, what ends it.

    Args:
        schedule: what to show.
        sizes: how large the blocks are.
    """
    most = " at most" if any(stage.patience_epochs for stage in schedule.stages) else ""
    table = console.TitledTable(
        f"Schedule: {schedule.regime}, {schedule.max_epochs} epochs{most}",
        "\n".join(_caption(schedule)),
    )
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
            "\n".join([*_with_rates(schedule, index), *_own_rules(stage)]),
            "everything" if whole else ", ".join(_in_order(schedule, stage.rates)),
            f"{sizes.trained(stage.rates):,}",
            f"{sizes.share(stage.rates):.1%}",
        )
    return table


def _in_order(schedule: Schedule, blocks: Mapping[str, float]) -> list[str]:
    order = [*reversed(schedule.blocks), NORMS]
    return sorted(blocks, key=order.index)


def _starting(schedule: Schedule, index: int) -> list[str]:
    """Blocks whose rate starts from a small one in this stage."""
    stage = schedule.stages[index]
    before = {} if index == 0 or stage.restarts else schedule.stages[index - 1].rates
    return [block for block in _in_order(schedule, stage.rates) if block not in before]


def _with_rates(schedule: Schedule, index: int) -> list[str]:
    """Blocks that share a peak rate together, such as `decoder1, decoder2 (0.001)`."""
    at_rate: dict[str, list[str]] = {}
    for block in _starting(schedule, index):
        at_rate.setdefault(f"{schedule.stages[index].rates[block]:.3g}", []).append(block)
    everything = set(schedule.blocks)
    return [
        f"{'everything' if everything <= set(names) else ', '.join(names)} ({rate})"
        for rate, names in at_rate.items()
    ]


def _own_rules(stage: Stage) -> list[str]:
    """What is particular about a stage, a line each."""
    lines = []
    if stage.carries_best:
        lines.append("from the best weights so far")
    if stage.patience_epochs is not None:
        lines.append(f"ends after {stage.patience_epochs} epochs without a better Dice")
    if stage.boost:
        b = stage.boost
        lines.append(f"{b.block} at {b.factor:g} times its rate for {b.epochs} epochs")
    if stage.augmentation or stage.augmentation_strength != 1:
        strength = f", strength {stage.augmentation_strength:g}"
        name = stage.augmentation or "as in the run"
        lines.append(f"augmentation {name}{strength if stage.augmentation_strength != 1 else ''}")
    return lines


def _caption(schedule: Schedule) -> list[str]:
    curve = schedule.stages[-1].curve
    lines = [
        f"A rate warms up over {curve.warmup:.0%} of the epochs for which its block trains, then "
        f"falls along a cosine to {curve.final:g} of its peak"
        + ("; it is held where a plateau ends the stage." if _holds(schedule) else ".")
    ]
    if schedule.never_unfrozen:
        only = " (but for normalisation)" if NORMS in schedule.unfreeze_epoch else ""
        lines.append(f"Frozen to the end{only}: {', '.join(schedule.never_unfrozen)}.")
    return lines + [f"Note: {remark}." for remark in schedule.remarks]


def _holds(schedule: Schedule) -> bool:
    return any(stage.patience_epochs for stage in schedule.stages[:-1])
