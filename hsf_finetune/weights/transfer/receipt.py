"""What became of every tensor of a checkpoint, and of every class."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.console import TitledTable, count_of, shorten_list
from hsf_finetune.weights.transfer.class_rules import ClassRule, derive_override
from hsf_finetune.weights.transfer.derive_classes import suggest_derivations
from hsf_finetune.weights.transfer.input_rules import InputRule
from hsf_finetune.weights.transfer.tensor_pairs import MatchedBy

Status = Literal["loaded", "remapped", "fresh", "refused"]
TensorStatus = tuple[Status, str]
"""What becomes of a tensor, and why it is not simply loaded."""
Part = Literal["encoder", "decoder", "head"]
"""Part of a network that a tensor belongs to; the encoder is what encoder weights have."""
Load = Literal["all", "trunk", "encoder"]
"""What is taken from a checkpoint: `weights.load`."""

_SHOWN = 8
_MOST_RULES = 16
"""Classes from which on they are listed by rule."""
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
        part: of the network.
        counted: whether it counts for `min_loaded`: unless `weights.load` or
            `weights.allow_mismatch` leaves it out, or its values follow from the settings.
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
    part: Part = "encoder"
    counted: bool = True

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
        load: what was taken: `weights.load`.
        beyond: of the unused ones, those that lie within the trunk of the network, which
            lacks them.
        allowed: what was taken although it differs: `weights.allow_mismatch`.
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
    load: Load = "all"
    beyond: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    @property
    def share_tensors(self) -> float:
        """Share of the trunk's tensors, as far as they count, that were loaded or remapped."""
        trunk = [e.filled for e in self.entries if e.trunk and e.counted]
        return sum(trunk) / len(trunk) if trunk else 1.0

    @property
    def share_parameters(self) -> float:
        """Share of the trunk's parameters (scalars) that were loaded or remapped."""
        trunk = [e for e in self.entries if e.trunk and e.counted and e.parameter]
        total = sum(entry.size for entry in trunk)
        return sum(e.size for e in trunk if e.filled) / total if total else 1.0

    @property
    def share_loaded(self) -> float:
        """The smaller of both shares, which is compared with `finetuning.min_loaded`."""
        return min(self.share_tensors, self.share_parameters)

    @property
    def mismatches(self) -> tuple[TensorEntry, ...]:
        """Trunk tensors that should have got values from the checkpoint, and did not."""
        return tuple(e for e in self.entries if e.trunk and e.counted and not e.filled)

    def count(self, part: Part) -> tuple[int, int]:
        """How many tensors of a part were loaded or remapped, and how many it has."""
        filled = [e.filled for e in self.entries if e.part == part]
        return sum(filled), len(filled)

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
        return Group(*tables, *(Text(line) for line in self.remarks()))

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

    def remarks(self) -> list[str]:
        """What the tables do not show, a line each."""
        taken = "" if self.load == "all" else f" (weights.load={self.load})"
        lines = [
            f"Trunk: {self.share_tensors:.1%} of the tensors, "
            f"{self.share_parameters:.1%} of the parameters loaded{taken}: {self._parts()}."
        ]
        known = [f"{key} {self.origin[key]}" for key in _ORIGIN if self.origin.get(key)]
        if known:
            lines.append("Origin: " + ", ".join(known) + ".")
        if proof := self.origin.get("proof"):
            lines.append(f"Proof: {proof}.")
        if self.renamed:
            lines.append(f"Names: {self.renamed}.")
        for how, by in (("key_map", "finetuning.key_map"), ("order", "order and shape")):
            shown = [f"{e.name} from {e.origin}" for e in self.entries if e.how == how]
            lines += _listing(shown, f"matched by {by}")
        if assumed := self.origin.get("assumed"):
            settings = ", ".join(f"models.{key}" for key in assumed)
            lines.append(f"Neither names nor shapes of the weights show {settings}: taken as set.")
        if self.allowed:
            lines.append(
                f"Other than in the weights: {shorten_list(self.allowed, 8)} (allow_mismatch)."
            )
        if any(rule.sources == (f"channel {n}",) for n, rule in enumerate(self.channels)):
            lines.append(
                "Nothing names the checkpoint's outputs, and there are as many as classes: they "
                "were taken by position. If they are others, name them in their order: "
                f"'finetuning.source_classes=[{BACKGROUND}, ...]'."
            )
        if self.dropped:
            lines.append(f"Classes of the checkpoint not used: {shorten_list(self.dropped, 16)}.")
        if derived := suggest_derivations(self.channels, self.dropped):
            lines.append(
                "If these classes come out of the checkpoint's, write: " + derive_override(derived)
            )
        if self.dropped_inputs:
            lines.append(
                "Input channels of the checkpoint not used: "
                + ", ".join(self.dropped_inputs)
                + " (the network behaves as if they were equal to their mean everywhere)."
            )
        if self.mismatches:
            count = count_of(len(self.mismatches), "tensor")
            lines.append(f"{count} of the trunk start fresh, as finetuning.min_loaded allows:")
            lines += mismatch_lines(self.mismatches, _SHOWN)
        if self.unused:
            groups = ", ".join(group_names(self.unused))
            count = count_of(len(self.unused), "tensor")
            lines.append(f"{count} of the checkpoint not used: {groups}.")
        return lines

    def _parts(self) -> str:
        """The parts of the network, each with how much of it was loaded."""
        words = []
        for part in get_args(Part):
            filled, size = self.count(part)
            if size:
                words.append(f"{part} {filled} of {size} tensors" if filled else f"{part} fresh")
        return ", ".join(words)


def mismatch_lines(entries: Sequence[TensorEntry], shown: int) -> list[str]:
    """The first few mismatches, a line each, and the count of the others."""
    return list_first([f"{entry.name}: {entry.reason}" for entry in entries], shown)


def list_first(lines: Sequence[str], shown: int) -> list[str]:
    """The first few lines, indented, and the count of the others."""
    more = [f"... and {len(lines) - shown} more"] if len(lines) > shown else []
    return [f"  {line}" for line in (*lines[:shown], *more)]


def group_names(names: Iterable[str], shown: int = _SHOWN) -> list[str]:
    """Names by what they begin with, and how many there are: `rotation_head.* (2)`."""
    names, base = sorted(names), ""
    while True:
        groups = Counter(base + name[len(base) :].partition(".")[0] for name in names)
        (first, *others) = groups
        if others or not all(name.startswith(f"{first}.") for name in names):
            break
        base = f"{first}."
    known = [
        f"{group}.* ({count})" if f"{group}." in "\0".join(names) else group
        for group, count in groups.most_common(shown)
    ]
    more = len(groups) - len(known)
    return [*known, f"and {more} more groups"] if more > 0 else known


# -------------------------------------------------------------------- internals
def _rules(title: str, of: str, rules: Sequence[ClassRule | InputRule]) -> Table:
    table = TitledTable(title)
    table.add_column(of)
    table.add_column("comes from", max_width=70)
    lines = {rule.line() for rule in rules}
    if len(rules) > 1 and len(lines) == 1:
        table.add_row(f"all {len(rules)}", Text(lines.pop()))
    elif len(rules) > _MOST_RULES:
        by_rule: dict[str, list[str]] = {}
        for rule in rules:
            by_rule.setdefault(rule.rule, []).append(rule.target)
        for name, targets in by_rule.items():
            table.add_row(Text(shorten_list(targets, 4)), Text(name))
    else:
        for rule in rules:
            table.add_row(Text(rule.target), Text(rule.line()))
    return table


def _listing(tensors: Sequence[str], what: str) -> list[str]:
    """A title and the first few tensors; nothing where there are none."""
    if not tensors:
        return []
    return [f"{count_of(len(tensors), 'tensor')} {what}:", *list_first(tensors, _SHOWN)]
