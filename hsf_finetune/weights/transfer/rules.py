"""How channels of a new network are made of those of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rule = Literal["copied", "split", "merged", "from background", "copied by position", "fresh"]
InputKind = Literal["copied", "copied by position", "mean", "zero"]


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
class InputRule:
    """Where the weights that read one input channel come from.

    Args:
        target: the channel's name, or its position where it has none.
        rule: how its weights are made.
        sources: channels of the checkpoint that they are made of.
        shares: how much of the weights of each of the checkpoint's channels it gets.
    """

    target: str
    rule: InputKind
    sources: tuple[str, ...]
    shares: tuple[float, ...]

    def keeps_weights(self, place: int) -> bool:
        """Whether the channel at `place` has the weights of that place in the checkpoint."""
        return self.shares == tuple(float(n == place) for n in range(len(self.shares)))

    def line(self) -> str:
        """The rule in a few words."""
        if self.rule == "zero":
            return "zero - it starts without a say"
        parts = [share for share in self.shares if share]
        if self.rule == "mean":
            terms = zip(parts, self.sources, strict=True)
            return "mean - " + " + ".join(f"{share:.3g} x {name}" for share, name in terms)
        words = [self.rule] if self.sources == (self.target,) else [self.rule, "of", *self.sources]
        return " ".join(words) + (f" (x {parts[0]:.3g})" if parts[0] != 1 else "")


def derive_override(target: str, source: str) -> str:
    """The override, quoted for a shell, that takes one class out of another."""
    return f"'finetuning.derive_from={{{target}: {source}}}'"
