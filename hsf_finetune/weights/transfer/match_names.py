"""Pairing tensors by name, once a prefix is removed or added."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.tensor_pairs import TensorPairs, canonical_names


@dataclass(frozen=True)
class PrefixChange:
    """How a checkpoint's names become the network's: one prefix removed, another added.

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
        changes = ((self.removed, "removed"), (self.added, "added"))
        return ", ".join(f"'{prefix}' {what}" for prefix, what in changes if prefix)


def find_prefix_change(source: Iterable[str], target: Iterable[str]) -> PrefixChange:
    """The change of prefix with which most names agree; the shortest of several.

    Any prefix may be removed (`module.`, `_orig_mod.`, `net.model.`). Only a first
    component of the network's own names may be added (`trunk.`): a UNet resembles the
    UNet inside it, and a deeper prefix would load one level's weights into another.

    Args:
        source: names in the checkpoint.
        target: names in the network.
    """
    counts = _count_matches(source, target)
    if not counts:
        return PrefixChange()
    best = min(counts, key=lambda pair: (-counts[pair], len(pair[0]) + len(pair[1]), pair))
    return PrefixChange(*best)


def pair_by_name(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> TensorPairs:
    """Pairs a network's tensors with a checkpoint's, by name.

    A tensor that the network knows by several names is found under any of them.

    Raises:
        WeightsError: the checkpoint has the network several times, with different values.
    """
    state = network.state_dict(keep_vars=True)
    canonical = canonical_names(network)
    change = find_prefix_change(tensors, state)
    _check_one_copy(change, tensors, state)
    origins: dict[str, str] = {}
    unused = []
    for name in tensors:
        known = canonical.get(change(name) or "")
        if known is None:
            unused.append(name)
        else:
            origins.setdefault(known, name)
    return TensorPairs(
        target={name: state[name] for name in dict.fromkeys(canonical.values())},
        source={known: tensors[name] for known, name in origins.items()},
        origins=origins,
        unused=tuple(unused),
        renamed=str(change),
    )


def _count_matches(source: Iterable[str], target: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many names each pair of prefixes (one removed, one added) brings together."""
    added_by_rest: dict[str, set[str]] = defaultdict(set)
    for name in target:
        added_by_rest[name].add("")
        first, dot, rest = name.partition(".")
        if dot:
            added_by_rest[rest].add(first + dot)
    counts: Counter[tuple[str, str]] = Counter()
    for name in source:
        parts = name.split(".")
        for cut in range(len(parts)):
            rest = ".".join(parts[cut:])
            for added in added_by_rest.get(rest, ()):
                counts[name[: len(name) - len(rest)], added] += 1
    return counts


def _check_one_copy(
    change: PrefixChange,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
) -> None:
    """Refuses to choose between a student and its teacher, a first and a second network."""
    if not change.removed:
        return
    counts = _count_matches(tensors, state)
    most = counts[change.removed, change.added]
    # Any two networks share a few names, such as `weight`; that makes no copy of this one.
    if 3 * most < len(state):
        return
    own = {change(name): tensor for name, tensor in tensors.items() if change(name) in state}
    others = []
    for (removed, added), count in counts.items():
        other = PrefixChange(removed, added)
        twins = {other(name): tensor for name, tensor in tensors.items() if other(name) in state}
        if count == most and removed != change.removed and twins.keys() == own.keys():
            same = all(torch.equal(twins[name], own[name]) for name in own)
            others += [] if same else [removed]
    if others:
        found = sorted([change.removed, *others])
        raise WeightsError(
            "the checkpoint holds several copies of the network, and they differ",
            found="\n".join(f"{prefix} ({most} tensors)" for prefix in found),
            fix=f"choose one: finetuning.key_prefix={found[0]}",
        )
