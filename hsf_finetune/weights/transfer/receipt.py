"""What became of every tensor of a checkpoint, and of every class."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hsf_finetune.system.console import TitledTable, count_of
from hsf_finetune.weights.transfer.class_rules import ClassRule, derive_override
from hsf_finetune.weights.transfer.input_rules import InputRule
from hsf_finetune.weights.transfer.tensor_pairs import MatchedBy

Status = Literal["loaded", "remapped", "fresh", "refused"]
TensorStatus = tuple[Status, str]
"""What becomes of a tensor, and why it is not simply loaded."""

_SHOWN = 8
_ORIGIN = ("name", "version", "format", "licence", "citation", "url")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the network.

    Args:
        name: its name in the network's state dict.
        block: the block that owns it.
        status: `loaded` as it was, `remapped` channel by channel, `fresh` because the
            checkpoint has nothing for it, or `refused` because the shapes differ.
        source_shape: shape in the checkpoint; None where it has none.
        target_shape: shape in the network.
        reason: why it is not simply loaded.
        trunk: whether it is independent of the classes.
        parameter: whether it is trained (False for buffers).
        origin: its name in the checkpoint; empty where it has none.
        how: what paired the two names.
    """

    name: str
    block: str
    status: Status
    source_shape: tuple[int, ...] | None
    target_shape: tuple[int, ...]
    reason: str = ""
    trunk: bool = True
    parameter: bool = True
    origin: str = ""
    how: MatchedBy = "name"

    @property
    def filled(self) -> bool:
        """Whether its values come from the checkpoint."""
        return self.status in ("loaded", "remapped")

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.target_shape)


@dataclass(frozen=True)
class Receipt:
    """The outcome of a transfer.

    Args:
        source: the checkpoint's path.
        digest: SHA-256 of that file.
        entries: one per tensor of the network.
        unused: tensors of the checkpoint that no tensor of the network uses.
        channels: one rule per output channel.
        dropped: classes of the checkpoint that no output channel comes from.
        renamed: how the checkpoint's names were changed to the network's.
        inputs: one rule per input channel; empty where there was no request for them or
            the checkpoint has nothing that reads them.
        dropped_inputs: input channels of the checkpoint that nothing came from.
        origin: what is known of where the weights are from (licence, citation, ...).
    """

    source: str
    digest: str
    entries: tuple[TensorEntry, ...]
    unused: tuple[str, ...]
    channels: tuple[ClassRule, ...]
    dropped: tuple[str, ...]
    renamed: str = ""
    inputs: tuple[InputRule, ...] = ()
    dropped_inputs: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def share_tensors(self) -> float:
        """Share of the trunk's tensors that were loaded or remapped."""
        trunk = [entry.filled for entry in self.entries if entry.trunk]
        return sum(trunk) / len(trunk) if trunk else 1.0

    @property
    def share_parameters(self) -> float:
        """Share of the trunk's parameters (scalars) that were loaded or remapped."""
        trunk = [entry for entry in self.entries if entry.trunk and entry.parameter]
        total = sum(entry.size for entry in trunk)
        return sum(e.size for e in trunk if e.filled) / total if total else 1.0

    @property
    def share_loaded(self) -> float:
        """The smaller of both shares, which is compared with `finetuning.min_loaded`."""
        return min(self.share_tensors, self.share_parameters)

    @property
    def mismatches(self) -> tuple[TensorEntry, ...]:
        """Trunk tensors that got no values from the checkpoint."""
        return tuple(e for e in self.entries if e.trunk and not e.filled)

    def to_dict(self) -> dict[str, Any]:
        """The receipt as types that JSON knows."""
        shares = {
            "share_tensors": self.share_tensors,
            "share_parameters": self.share_parameters,
            "counts": dict(Counter(entry.status for entry in self.entries)),
        }
        full: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return shares | full

    def table(self) -> Group:
        """The receipt for a terminal of 100 columns: blocks, channels, what is left over."""
        tables = [self._blocks(), _rules("Head", "class", self.channels)]
        if any(
            not rule.keeps_weights(n) or rule.sources != (rule.target,)
            for n, rule in enumerate(self.inputs)
        ):
            tables.append(_rules("Input", "channel", self.inputs))
        return Group(*tables, *(Text(line) for line in self._remarks()))

    def _blocks(self) -> Table:
        table = TitledTable(f"Weights from {self.source}")
        table.add_column("block")
        statuses = get_args(Status)
        for title in (*statuses, "tensors", "parameters"):
            table.add_column(title, justify="right")
        for block in dict.fromkeys(entry.block for entry in self.entries):
            own = [entry for entry in self.entries if entry.block == block]
            counts = Counter(entry.status for entry in own)
            cells = [str(counts[status] or "-") for status in statuses]
            size = sum(entry.size for entry in own if entry.parameter)
            table.add_row(block, *cells, str(len(own)), f"{size:,}")
        return table

    def _remarks(self) -> list[str]:
        lines = [
            f"Trunk: {self.share_tensors:.1%} of the tensors, "
            f"{self.share_parameters:.1%} of the parameters loaded."
        ]
        known = [f"{key} {self.origin[key]}" for key in _ORIGIN if self.origin.get(key)]
        if known:
            lines.append("Origin: " + ", ".join(known) + ".")
        if self.renamed:
            lines.append(f"Names: {self.renamed}.")
        for how, by in (("key_map", "finetuning.key_map"), ("order", "order and shape")):
            entries = [entry for entry in self.entries if entry.how == how]
            shown = [f"{entry.name} from {entry.origin}" for entry in entries]
            lines += _listing(shown, f"matched by {by}")
        if self.dropped:
            lines.append(f"Classes of the checkpoint not used: {', '.join(self.dropped)}.")
        new = [rule.target for rule in self.channels if rule.rule == "from background"]
        if self.dropped and new:
            lines.append(
                f"If '{new[0]}' comes out of '{self.dropped[0]}', write: "
                + derive_override(new[0], self.dropped[0])
            )
        if self.dropped_inputs:
            lines.append(
                "Input channels of the checkpoint not used: "
                + ", ".join(self.dropped_inputs)
                + " (the network behaves as if they were equal to their mean everywhere)."
            )
        lines += mismatch_lines(self.mismatches, _SHOWN)
        return lines + _listing(self.unused, "of the checkpoint not used")


def mismatch_lines(entries: Sequence[TensorEntry], shown: int) -> list[str]:
    """The first few mismatches, a line each, and the count of the others."""
    return _first([f"{entry.name}: {entry.reason}" for entry in entries], shown)


# -------------------------------------------------------------------- internals
def _rules(title: str, of: str, rules: Sequence[ClassRule | InputRule]) -> Table:
    table = TitledTable(title)
    table.add_column(of)
    table.add_column("comes from", max_width=70)
    for rule in rules:
        table.add_row(Text(rule.target), Text(rule.line()))
    return table


def _listing(tensors: Sequence[str], what: str) -> list[str]:
    """A title and the first few tensors; nothing where there are none."""
    if not tensors:
        return []
    return [f"{count_of(len(tensors), 'tensor')} {what}:", *_first(tensors, _SHOWN)]


def _first(lines: Sequence[str], shown: int) -> list[str]:
    more = [f"... and {len(lines) - shown} more"] if len(lines) > shown else []
    return [f"  {line}" for line in (*lines[:shown], *more)]
