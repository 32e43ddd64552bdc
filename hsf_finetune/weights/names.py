"""Bringing a checkpoint's tensor names to the network's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn


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
    if not votes:
        return Renaming()
    best = min(votes, key=lambda pair: (-votes[pair], len(pair[0]) + len(pair[1]), pair))
    return Renaming(*best)


@dataclass(frozen=True)
class Match:
    """The tensors of a network beside those of a checkpoint.

    Args:
        here: canonical name -> tensor of the network; aliases are left out.
        there: canonical name -> tensor of the checkpoint, as far as it has one.
        unused: names of the checkpoint that the network does not know.
        renamed: how names were brought together.
    """

    here: dict[str, torch.Tensor]
    there: dict[str, torch.Tensor]
    unused: tuple[str, ...]
    renamed: str


def match_tensors(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Match:
    """Pairs a network's tensors with a checkpoint's, by name.

    A tensor that the network knows by several names is met under any of them.
    """
    state = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    canonical = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    rename = align(tensors, state)
    there: dict[str, torch.Tensor] = {}
    unused = []
    for name, tensor in tensors.items():
        known = canonical.get(rename(name) or "")
        if known is None:
            unused.append(name)
        else:
            there.setdefault(known, tensor)
    here = {name: state[name] for name in dict.fromkeys(canonical.values())}
    return Match(here, there, tuple(unused), str(rename))
