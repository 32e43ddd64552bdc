"""Which input channels of a checkpoint each input channel of the network is read by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.transfer.rules import InputKind, InputRule

Policy = Literal["mean", "zero"]


@dataclass(frozen=True)
class Inputs:
    """The input side of a transfer.

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
    policy: Policy | Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Ends:
    """The channels of both sides, by name or, where they have none, by number."""

    here: tuple[str, ...]
    there: tuple[str, ...]
    named: bool

    def find(self, name: str) -> int | None:
        """The checkpoint's channel of that name or number."""
        if name in self.there:
            return self.there.index(name)
        return int(name) if name.isdecimal() and int(name) < len(self.there) else None


def input_rules(inputs: Inputs, here: int, there: int) -> tuple[InputRule, ...]:
    """One rule per input channel of the network.

    Channels of the same name belong together; without names on both sides, or with one
    channel each, those of the same position do where both sides have as many. For any
    other channel there must be a policy: a channel of the checkpoint, `mean` (of all of
    them) or `zero`.

    A convolution's response is the sum over input channels of weights times image, so a
    checkpoint's channel that is asked for several times is shared out: its weights are
    divided by how often. As many channels that show the same then give the response that
    the checkpoint's channels gave to it, whatever their number; and zero weights leave it
    just as it was, whatever the new channel shows.

    Args:
        inputs: names and policy.
        here: input channels of the network, M.
        there: input channels of the checkpoint, N.

    Returns:
        M rules with N shares each; every column that is used sums to 1.

    Raises:
        ConfigError: a channel has no counterpart and no policy, a name is unknown, or
            no channel of the checkpoint is used.
    """
    ends = _ends(inputs, here, there)
    wishes = {} if inputs.policy is None or isinstance(inputs.policy, str) else inputs.policy
    _check(wishes, ends)
    taken = {ends.find(wish) for wish in wishes.values()}
    chosen: list[tuple[InputKind, tuple[int, ...]] | None] = []
    for place, name in enumerate(ends.here):
        wish = wishes.get(name, wishes.get(str(place)))
        if wish is None:
            chosen.append(_default(place, ends, taken, inputs.policy))
        elif (channel := ends.find(wish)) is not None:
            chosen.append(("copied", (channel,)))
        else:
            chosen.append(_by_policy(wish, there))
    missing = [name for name, choice in zip(ends.here, chosen, strict=True) if choice is None]
    if missing:
        raise _undecided(ends, missing)
    if all(choice is None or not choice[1] for choice in chosen):
        raise ConfigError(
            "finetuning.input_channels uses no channel of the checkpoint",
            found=inputs.policy,
            expected=f"at least one of: {', '.join(ends.there)}, mean",
        )
    return _shared_out(ends, [choice for choice in chosen if choice is not None])


def dropped_inputs(rules: Sequence[InputRule]) -> tuple[int, ...]:
    """The checkpoint's channels that no rule uses."""
    if not rules:
        return ()
    return tuple(
        n
        for n, column in enumerate(zip(*(r.shares for r in rules), strict=True))
        if not any(column)
    )


def _ends(inputs: Inputs, here: int, there: int) -> _Ends:
    names = inputs.source_names
    if names is not None and (len(names) != there or len(set(names)) < there):
        raise ConfigError(
            f"the checkpoint's {there} input channels should have a name each, all different",
            found="[" + ", ".join(names) + "]",
            fix="finetuning.source_channels=[...], in the order of the channels",
        )
    return _Ends(
        here=tuple(inputs.names or (str(n) for n in range(here))),
        there=tuple(inputs.source_names or (str(n) for n in range(there))),
        named=inputs.names is not None and inputs.source_names is not None,
    )


def _default(
    place: int, ends: _Ends, taken: set[int | None], policy: Policy | Mapping[str, str] | None
) -> tuple[InputKind, tuple[int, ...]] | None:
    """What becomes of a channel that no wish speaks of; None where that has to be said."""
    here, there = len(ends.here), len(ends.there)
    if ends.named and ends.here[place] in ends.there:
        return "copied", (ends.there.index(ends.here[place]),)
    by_position = here == there and (not ends.named or here == 1) and place not in taken
    # The first channels keep their weights where further ones start at zero.
    by_position |= not ends.named and policy == "zero" and place < there < here
    if by_position:
        return "copied by position", (place,)
    if not isinstance(policy, str) or (policy == "zero" and not ends.named and here < there):
        return None
    return _by_policy(policy, there)


def _by_policy(policy: str, there: int) -> tuple[InputKind, tuple[int, ...]]:
    return ("mean", tuple(range(there))) if policy == "mean" else ("zero", ())


def _shared_out(
    ends: _Ends, chosen: Sequence[tuple[InputKind, tuple[int, ...]]]
) -> tuple[InputRule, ...]:
    wanted = [[0.0] * len(ends.there) for _ in chosen]
    for row, (_, channels) in zip(wanted, chosen, strict=True):
        for channel in channels:
            row[channel] = 1 / len(channels)
    total = [sum(column) or 1.0 for column in zip(*wanted, strict=True)]
    return tuple(
        InputRule(
            name,
            kind,
            tuple(ends.there[channel] for channel in channels),
            tuple(share / whole for share, whole in zip(row, total, strict=True)),
        )
        for name, row, (kind, channels) in zip(ends.here, wanted, chosen, strict=True)
    )


def _check(wishes: Mapping[str, str], ends: _Ends) -> None:
    places = [str(place) for place in range(len(ends.here))]
    for name, wish in wishes.items():
        if name not in ends.here and name not in places:
            raise _unknown(name, ends.here, "is no input channel of the data")
        if wish not in ("mean", "zero") and ends.find(wish) is None:
            raise _unknown(wish, (*ends.there, "mean", "zero"), "is no channel of the checkpoint")


def _unknown(name: str, known: Sequence[str], what: str) -> ConfigError:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return ConfigError(
        f"finetuning.input_channels: '{name}' {what}",
        expected="one of " + ", ".join(known),
        fix=f"did you mean '{close[0]}'?" if close else None,
    )


def _undecided(ends: _Ends, missing: Sequence[str]) -> ConfigError:
    here, there, new = ends.here, ends.there, missing[0]
    fixes = [
        "finetuning.input_channels=mean: shares the checkpoint's weights out among the channels",
        f"'finetuning.input_channels={{{new}: {there[0]}}}': says it channel by channel "
        "(one of the checkpoint's, mean or zero)",
    ]
    if ends.named or len(there) < len(here):
        fixes.insert(
            0,
            "finetuning.input_channels=zero: new channels start at weight zero, and the network "
            "as it was",
        )
    if not ends.named:
        fixes.append(
            "or name the channels of both (datasets.channel_names, finetuning.source_channels), "
            "so that they are matched by name"
        )
    names = "by name" if ends.named else "numbered from 0, since not both sides have names"
    return ConfigError(
        f"the checkpoint has no counterpart for input channel {', '.join(missing)}",
        found=f"{len(there)} in the checkpoint ({', '.join(there)}), "
        f"{len(here)} in the data ({', '.join(here)}), {names}",
        fix="\n".join(fixes),
    )
