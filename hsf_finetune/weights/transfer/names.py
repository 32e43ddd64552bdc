"""Bringing a checkpoint's tensor names to the network's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hsf_finetune.system.errors import WeightsError


@dataclass(frozen=True)
class Renaming:
    """One prefix off, another on.

    Args:
        removed: prefix of the checkpoint's names.
        added: prefix of the network's names.
    """

    removed: str = ""
    added: str = ""

    def __call__(self, name: str) -> str | None:
        """The network's name of a checkpoint's tensor; None without the prefix."""
        if not name.startswith(self.removed):
            return None
        return self.added + name[len(self.removed) :]

    def __str__(self) -> str:
        """What was done, in words; empty for nothing."""
        words = []
        if self.removed:
            words.append(f"'{self.removed}' removed")
        if self.added:
            words.append(f"'{self.added}' added")
        return ", ".join(words)


def align(there: Iterable[str], here: Iterable[str]) -> Renaming:
    """The renaming under which most names agree; the shorter one of equals.

    Any prefix may be removed (`module.`, `_orig_mod.`, `net.model.`). Only a first
    component of the network's own names may be added (`trunk.`): a UNet resembles the
    UNet inside it, and a deeper prefix would load one level's weights into another.
    """
    votes = _votes(there, here)
    if not votes:
        return Renaming()
    best = min(votes, key=lambda pair: (-votes[pair], len(pair[0]) + len(pair[1]), pair))
    return Renaming(*best)


def _votes(there: Iterable[str], here: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many names each pair of prefixes (one off, one on) brings together."""
    added_by_rest: dict[str, set[str]] = defaultdict(set)
    for name in here:
        added_by_rest[name].add("")
        first, dot, rest = name.partition(".")
        if dot:
            added_by_rest[rest].add(first + dot)
    votes: Counter[tuple[str, str]] = Counter()
    for name in there:
        parts = name.split(".")
        for cut in range(len(parts)):
            rest = ".".join(parts[cut:])
            for added in added_by_rest.get(rest, ()):
                votes[name[: len(name) - len(rest)], added] += 1
    return votes


@dataclass(frozen=True)
class Match:
    """The tensors of a network beside those of a checkpoint.

    Args:
        here: canonical name -> tensor of the network; aliases are left out.
        there: canonical name -> tensor of the checkpoint, as far as it has one.
        unused: names of the checkpoint that the network does not know.
        renamed: how names were brought together.
        origins: canonical name -> name in the checkpoint, for those in `there`.
    """

    here: dict[str, torch.Tensor]
    there: dict[str, torch.Tensor]
    unused: tuple[str, ...]
    renamed: str
    origins: dict[str, str]


def canonical_names(network: nn.Module) -> dict[str, str]:
    """Every name in a network's state dict -> the first name of the same tensor."""
    state = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def match_tensors(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Match:
    """Pairs a network's tensors with a checkpoint's, by name.

    A tensor that the network knows by several names is met under any of them.

    Raises:
        WeightsError: the checkpoint has the network several times, with other values.
    """
    state = network.state_dict(keep_vars=True)
    canonical = canonical_names(network)
    rename = align(tensors, state)
    _check_one_copy(rename, tensors, state)
    origins: dict[str, str] = {}
    unused = []
    for name in tensors:
        known = canonical.get(rename(name) or "")
        if known is None:
            unused.append(name)
        else:
            origins.setdefault(known, name)
    here = {name: state[name] for name in dict.fromkeys(canonical.values())}
    there = {known: tensors[name] for known, name in origins.items()}
    return Match(here, there, tuple(unused), str(rename), origins)


def _check_one_copy(
    rename: Renaming, tensors: Mapping[str, torch.Tensor], here: Mapping[str, torch.Tensor]
) -> None:
    """Refuses to choose between a student and its teacher, a first and a second network."""
    if not rename.removed:
        return
    votes = _votes(tensors, here)
    most = votes[rename.removed, rename.added]
    # Any two networks share a few names, such as `weight`; that makes no copy of this one.
    if 3 * most < len(here):
        return
    own = {rename(name): tensor for name, tensor in tensors.items() if rename(name) in here}
    others = []
    for (removed, added), count in votes.items():
        other = Renaming(removed, added)
        twins = {other(name): tensor for name, tensor in tensors.items() if other(name) in here}
        if count == most and removed != rename.removed and twins.keys() == own.keys():
            same = all(_equal(twins[name], own[name]) for name in own)
            others += [] if same else [removed]
    if others:
        found = sorted([rename.removed, *others])
        raise WeightsError(
            "the checkpoint holds several copies of the network, and they differ",
            found="\n".join(f"{prefix} ({most} tensors)" for prefix in found),
            fix=f"say which: finetuning.key_prefix={found[0]}",
        )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one, other))
