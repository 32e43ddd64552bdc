"""What became of every tensor of a checkpoint, and of every class."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

Status = Literal["loaded", "remapped", "fresh", "refused"]
Rule = Literal["copied", "split", "merged", "from background", "copied by position", "fresh"]
Shape = tuple[int, ...]

_SHOWN = 8


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the network.

    Args:
        name: its name in the network's state dict.
        block: the block that owns it.
        status: `loaded` as it was, `remapped` class by class, `fresh` because the
            checkpoint has nothing for it, or `refused` because the shapes differ.
        there: shape in the checkpoint; None where it has none.
        here: shape in the network.
        reason: why it is not simply loaded.
        trunk: whether it is independent of the classes.
        parameter: whether it is trained (False for buffers).
    """

    name: str
    block: str
    status: Status
    there: Shape | None
    here: Shape
    reason: str = ""
    trunk: bool = True
    parameter: bool = True

    @property
    def size(self) -> int:
        """Number of values."""
        count = 1
        for extent in self.here:
            count *= extent
        return count


@dataclass(frozen=True)
class ChannelRule:
    """Where one output channel comes from.

    Args:
        target: class of the new head.
        rule: how its channel is made.
        sources: classes of the checkpoint that it is made of.
        channels: their channels in the checkpoint; empty where it starts fresh.
        bias_shift: what is added to the bias.
        note: what a user should know about it.
    """

    target: str
    rule: Rule
    sources: tuple[str, ...]
    channels: tuple[int, ...]
    bias_shift: float = 0.0
    note: str = ""

    def line(self) -> str:
        """The rule in a few words."""
        words: list[str] = [self.rule]
        if self.rule != "from background" and self.sources not in ((), (self.target,)):
            words.append("of " + " + ".join(self.sources))
        if self.bias_shift:
            words.append(f"(bias {self.bias_shift:+.3f})")
        if self.note:
            words.append(f"- {self.note}")
        return " ".join(words)


@dataclass(frozen=True)
class Receipt:
    """The outcome of a transfer.

    Args:
        source: the checkpoint's path.
        digest: SHA-256 of that file.
        entries: one per tensor of the network.
        unused: tensors of the checkpoint that nothing took.
        channels: one rule per output channel.
        dropped: classes of the checkpoint that no output channel comes from.
        renamed: how the checkpoint's names were brought to the network's.
    """

    source: str
    digest: str
    entries: tuple[TensorEntry, ...]
    unused: tuple[str, ...]
    channels: tuple[ChannelRule, ...]
    dropped: tuple[str, ...]
    renamed: str = ""

    @property
    def share_tensors(self) -> float:
        """Share of the trunk's tensors that were loaded."""
        trunk = [entry.status == "loaded" for entry in self.entries if entry.trunk]
        return sum(trunk) / len(trunk) if trunk else 1.0

    @property
    def share_parameters(self) -> float:
        """Share of the trunk's parameters (scalars) that were loaded."""
        trunk = [entry for entry in self.entries if entry.trunk and entry.parameter]
        total = sum(entry.size for entry in trunk)
        return sum(e.size for e in trunk if e.status == "loaded") / total if total else 1.0

    @property
    def share_loaded(self) -> float:
        """The smaller of both shares, which `finetuning.min_loaded` is held against."""
        return min(self.share_tensors, self.share_parameters)

    @property
    def mismatches(self) -> tuple[TensorEntry, ...]:
        """Trunk tensors that were not loaded."""
        return tuple(e for e in self.entries if e.trunk and e.status != "loaded")

    def plain(self) -> dict[str, Any]:
        """The receipt as types that JSON knows."""
        shares = {
            "share_tensors": self.share_tensors,
            "share_parameters": self.share_parameters,
            "counts": dict(Counter(entry.status for entry in self.entries)),
        }
        full: dict[str, Any] = _listed(asdict(self))
        return shares | full

    def table(self) -> Table:
        """The receipt for a terminal of 100 columns: blocks, classes, what is left over."""
        page = Table.grid()
        page.add_row(self._blocks())
        page.add_row(self._classes())
        for line in self._remarks():
            page.add_row(Text(line))
        return page

    def _blocks(self) -> Table:
        table = Table(title=f"Weights from {self.source}", title_justify="left")
        table.add_column("block")
        for status in ("loaded", "remapped", "fresh", "refused", "tensors", "parameters"):
            table.add_column(status, justify="right")
        for block in dict.fromkeys(entry.block for entry in self.entries):
            own = [entry for entry in self.entries if entry.block == block]
            counts = Counter(entry.status for entry in own)
            statuses: tuple[Status, ...] = ("loaded", "remapped", "fresh", "refused")
            cells = [str(counts[status] or "-") for status in statuses]
            size = sum(entry.size for entry in own if entry.parameter)
            table.add_row(block, *cells, str(len(own)), f"{size:,}")
        return table

    def _classes(self) -> Table:
        table = Table(title="Head", title_justify="left")
        table.add_column("class")
        table.add_column("comes from", max_width=70)
        for rule in self.channels:
            table.add_row(Text(rule.target), Text(rule.line()))
        return table

    def _remarks(self) -> list[str]:
        lines = [
            f"Trunk: {self.share_tensors:.1%} of the tensors, "
            f"{self.share_parameters:.1%} of the parameters loaded."
        ]
        if self.renamed:
            lines.append(f"Names: {self.renamed}.")
        if self.dropped:
            lines.append(f"Classes of the checkpoint not used: {', '.join(self.dropped)}.")
        new = [rule.target for rule in self.channels if rule.rule == "from background"]
        if self.dropped and new:
            lines.append(
                f"If '{new[0]}' comes out of '{self.dropped[0]}', say so: "
                + derive_override(new[0], self.dropped[0])
            )
        lines += mismatch_lines(self.mismatches, _SHOWN)
        if self.unused:
            lines.append(f"{len(self.unused)} tensors of the checkpoint not used:")
            lines += [f"  {name}" for name in self.unused[:_SHOWN]]
            lines += _more(len(self.unused) - _SHOWN)
        return lines


def derive_override(target: str, source: str) -> str:
    """The override, quoted for a shell, that takes one class out of another."""
    return f"'finetuning.derive_from={{{target}: {source}}}'"


def mismatch_lines(entries: tuple[TensorEntry, ...], shown: int) -> list[str]:
    """The first few mismatches, a line each, and the count of the others."""
    lines = [f"  {entry.name}: {entry.reason}" for entry in entries[:shown]]
    return lines + _more(len(entries) - shown)


def _more(count: int) -> list[str]:
    return [f"  ... and {count} more"] if count > 0 else []


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_listed(item) for item in value]
    return value
