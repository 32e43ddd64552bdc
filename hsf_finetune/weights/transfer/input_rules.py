"""Which input channels of a checkpoint each input channel of a network takes its weights from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from hsf_finetune.system.errors import ConfigError

InputRuleName = Literal["copied", "copied by position", "mean", "zero"]
InputPolicy = Literal["mean", "zero"]
_Choice = tuple[InputRuleName, tuple[int, ...]]
"""How a channel's weights are made, and of which channels of the checkpoint."""


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
    rule: InputRuleName
    sources: tuple[str, ...]
    shares: tuple[float, ...]

    def keeps_weights(self, position: int) -> bool:
        """Whether the channel has exactly the weights of that position in the checkpoint."""
        return self.shares == tuple(float(n == position) for n in range(len(self.shares)))

    def line(self) -> str:
        """The rule in a few words."""
        if self.rule == "zero":
            return "zero - starts with zero weights"
        parts = [share for share in self.shares if share]
        if self.rule == "mean":
            terms = zip(parts, self.sources, strict=True)
            return "mean - " + " + ".join(f"{share:.3g} x {name}" for share, name in terms)
        words = [self.rule] if self.sources == (self.target,) else [self.rule, "of", *self.sources]
        return " ".join(words) + (f" (x {parts[0]:.3g})" if parts[0] != 1 else "")


@dataclass(frozen=True)
class InputRequest:
    """The input channels of a network, and what to do with them in a transfer.

    Args:
        axes: state dict name -> axes that count input channels, from
            `networks.build.channel_axes`.
        names: name of each input channel of the network; None if they have none.
        source_names: those of a checkpoint that does not say (`finetuning.source_channels`).
        policy: `finetuning.input_channels`: what becomes of channels that the checkpoint
            has no counterpart for, or channel -> channel of the checkpoint, mean or zero.
    """

    axes: Mapping[str, tuple[int, ...]]
    names: Sequence[str] | None = None
    source_names: Sequence[str] | None = None
    policy: InputPolicy | Mapping[str, str] | None = None


@dataclass(frozen=True)
class _ChannelNames:
    """The channels of both sides, by name or, where they have none, by number."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    both_named: bool

    def find_source(self, name: str) -> int | None:
        """The checkpoint's channel of that name or number."""
        if name in self.source:
            return self.source.index(name)
        return int(name) if name.isdecimal() and int(name) < len(self.source) else None


def make_input_rules(request: InputRequest, source: int, target: int) -> tuple[InputRule, ...]:
    """One rule per input channel of the network.

    Channels of the same name belong together; without names on both sides, or with one
    channel each, those of the same position do where both sides have as many. For any
    other channel there must be a policy: a channel of the checkpoint, `mean` (of all of
    them) or `zero`.

    A convolution's response is the sum over input channels of weights times image, so a
    checkpoint's channel that is used several times is shared out: its weights are
    divided by how often. As many channels that show the same then give the response that
    the checkpoint's channels gave to it, whatever their number; and zero weights leave it
    just as it was, whatever the new channel shows.

    Args:
        request: names and policy.
        source: input channels of the checkpoint, N.
        target: input channels of the network, M.

    Returns:
        M rules with N shares each; every column that is used sums to 1.

    Raises:
        ConfigError: a channel has no counterpart and no policy, a name is unknown, or
            no channel of the checkpoint is used.
    """
    names = _channel_names(request, source, target)
    policy = request.policy
    explicit = {} if policy is None or isinstance(policy, str) else policy
    _check_explicit(explicit, names)
    taken = {names.find_source(origin) for origin in explicit.values()}
    choices: list[_Choice] = []
    undecided: list[str] = []
    for position, name in enumerate(names.target):
        origin = explicit.get(name, explicit.get(str(position)))
        if origin is None:
            choice = _default_choice(position, names, taken, policy)
        elif (channel := names.find_source(origin)) is not None:
            choice = "copied", (channel,)
        else:
            choice = _mean_or_zero(origin, source)
        if choice is None:
            undecided.append(name)
        else:
            choices.append(choice)
    if undecided:
        raise _no_counterpart(names, undecided)
    if not any(channels for _, channels in choices):
        raise ConfigError(
            "finetuning.input_channels uses no channel of the checkpoint",
            found=policy,
            expected=f"at least one of: {', '.join(names.source)}, mean",
        )
    return _share_out(names, choices)


def dropped_inputs(rules: Sequence[InputRule]) -> tuple[int, ...]:
    """The checkpoint's channels that no rule uses."""
    columns = zip(*(rule.shares for rule in rules), strict=True)
    return tuple(n for n, column in enumerate(columns) if not any(column))


# -------------------------------------------------------------------- internals
def _channel_names(request: InputRequest, source: int, target: int) -> _ChannelNames:
    given = request.source_names
    if given is not None and (len(given) != source or len(set(given)) < source):
        raise ConfigError(
            f"the checkpoint's {source} input channels should have a name each, all different",
            found="[" + ", ".join(given) + "]",
            fix="finetuning.source_channels=[...], in the order of the channels",
        )
    return _ChannelNames(
        source=tuple(given or map(str, range(source))),
        target=tuple(request.names or map(str, range(target))),
        both_named=given is not None and request.names is not None,
    )


def _default_choice(
    position: int,
    names: _ChannelNames,
    taken: set[int | None],
    policy: InputPolicy | Mapping[str, str] | None,
) -> _Choice | None:
    """What becomes of a channel that the map does not have; None where the user must decide."""
    source, target = len(names.source), len(names.target)
    if names.both_named and names.target[position] in names.source:
        return "copied", (names.source.index(names.target[position]),)
    by_position = (
        source == target and (not names.both_named or target == 1) and position not in taken
    )
    # The first channels keep their weights where further ones start at zero.
    by_position |= not names.both_named and policy == "zero" and position < source < target
    if by_position:
        return "copied by position", (position,)
    if not isinstance(policy, str):
        return None
    if policy == "zero" and not names.both_named and target < source:
        return None
    return _mean_or_zero(policy, source)


def _mean_or_zero(policy: str, source: int) -> _Choice:
    return ("mean", tuple(range(source))) if policy == "mean" else ("zero", ())


def _share_out(names: _ChannelNames, choices: Sequence[_Choice]) -> tuple[InputRule, ...]:
    wanted = [[0.0] * len(names.source) for _ in choices]
    for row, (_, channels) in zip(wanted, choices, strict=True):
        for channel in channels:
            row[channel] = 1 / len(channels)
    total = [sum(column) or 1.0 for column in zip(*wanted, strict=True)]
    return tuple(
        InputRule(
            name,
            rule,
            tuple(names.source[channel] for channel in channels),
            tuple(share / whole for share, whole in zip(row, total, strict=True)),
        )
        for name, row, (rule, channels) in zip(names.target, wanted, choices, strict=True)
    )


def _check_explicit(explicit: Mapping[str, str], names: _ChannelNames) -> None:
    positions = [str(position) for position in range(len(names.target))]
    for name, origin in explicit.items():
        if name not in names.target and name not in positions:
            raise _unknown_channel(name, names.target, "is no input channel of the data")
        if origin not in ("mean", "zero") and names.find_source(origin) is None:
            known = (*names.source, "mean", "zero")
            raise _unknown_channel(origin, known, "is no channel of the checkpoint")


def _unknown_channel(name: str, known: Sequence[str], what: str) -> ConfigError:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return ConfigError(
        f"finetuning.input_channels: '{name}' {what}",
        expected="one of " + ", ".join(known),
        fix=f"did you mean '{close[0]}'?" if close else None,
    )


def _no_counterpart(names: _ChannelNames, undecided: Sequence[str]) -> ConfigError:
    source, target = names.source, names.target
    fixes = [
        "finetuning.input_channels=mean: shares the checkpoint's weights out among the channels",
        f"'finetuning.input_channels={{{undecided[0]}: {source[0]}}}': channel by channel "
        "(one of the checkpoint's, mean or zero)",
    ]
    if names.both_named or len(source) < len(target):
        fixes.insert(
            0,
            "finetuning.input_channels=zero: new channels start with zero weights, and the "
            "network as it was",
        )
    if not names.both_named:
        fixes.append(
            "or name the channels of both (datasets.channel_names, finetuning.source_channels), "
            "so that they are matched by name"
        )
    numbering = (
        "by name" if names.both_named else "numbered from 0, since not both sides have names"
    )
    return ConfigError(
        f"the checkpoint has no counterpart for input channel {', '.join(undecided)}",
        found=f"{len(source)} in the checkpoint ({', '.join(source)}), "
        f"{len(target)} in the data ({', '.join(target)}), {numbering}",
        fix="\n".join(fixes),
    )
