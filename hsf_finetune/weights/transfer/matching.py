"""Which tensor of a checkpoint goes to which of a network: by map, then by name or by order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.key_map import mapped
from hsf_finetune.weights.transfer.names import Match, canonical_names, match_tensors
from hsf_finetune.weights.transfer.order import Axes, pair_by_order
from hsf_finetune.weights.transfer.receipt import How


@dataclass(frozen=True)
class Matching:
    """What the user says of how tensors belong together.

    Args:
        by: names, or order and shape where names have nothing in common.
        key_map: checkpoint's name, or prefix that ends in a dot, -> the network's.
    """

    by: Literal["name", "order"] = "name"
    key_map: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Pairing:
    """The tensors of both sides, and what brought them together.

    Args:
        match: which belong together.
        how: canonical name -> what said so, where it was not the name.
        offer: what to tell a user of whose tensors too few match by name, although all
            of them do by order; empty where they do not.
    """

    match: Match
    how: Mapping[str, How]
    offer: str = ""


def pair(
    network: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    matching: Matching,
    loose: Axes,
    head: Collection[str],
) -> Pairing:
    """Pairs a network's tensors with a checkpoint's.

    Args:
        network: to be loaded.
        tensors: of the checkpoint.
        matching: what the user says.
        loose: network's name -> axes that count classes or input channels.
        head: names of the network that count classes.

    Raises:
        ConfigError: an entry of the map leads nowhere.
        WeightsError: they are to be paired by order, and do not agree in order and shape.
    """
    state, canonical = network.state_dict(keep_vars=True), canonical_names(network)
    here = {name: state[name] for name in dict.fromkeys(canonical.values())}
    pairs = mapped(matching.key_map or {}, tensors, canonical)
    chosen = {canonical[new]: old for old, new in pairs.items()}
    how: dict[str, How] = dict.fromkeys(chosen, "key_map")
    left = {name: tensor for name, tensor in tensors.items() if name not in pairs}
    rest = {name: tensor for name, tensor in here.items() if name not in chosen}
    ordered, difference = pair_by_order(rest, left, loose, head)
    if matching.by == "order":
        if difference:
            raise _out_of_order(difference)
        by_order = {new: old for old, new in ordered.items()}
        how |= dict.fromkeys(by_order, "order")
        # Another name of a tensor that is used has not been left out.
        used = {tensors[old].data_ptr() for old in by_order.values()}
        unused = [name for name, tensor in left.items() if tensor.data_ptr() not in used]
        origins = chosen | by_order
        there = {name: tensors[old] for name, old in origins.items()}
        return Pairing(Match(here, there, tuple(unused), "", origins), how)
    match = match_tensors(network, left)
    offer = "" if difference or all(name in match.there for name in rest) else _offer(ordered)
    displaced = {match.origins[new] for new in chosen if new in match.origins}
    unused = [name for name in left if name in match.unused or name in displaced]
    origins = match.origins | chosen
    there = {name: tensors[old] for name, old in origins.items()}
    return Pairing(Match(here, there, tuple(unused), match.renamed, origins), how, offer)


def _offer(pairs: Mapping[str, str]) -> str:
    shown = "".join(f"\n  {old} -> {new}" for old, new in list(pairs.items())[:3])
    return (
        f"all {len(pairs)} tensors agree with the network's in order and shape, though not in "
        f"name; if they are the same layers: finetuning.match=order{shown}"
    )


def _out_of_order(difference: str) -> WeightsError:
    return WeightsError(
        "finetuning.match=order: the checkpoint's tensors are not those of this network in "
        "another spelling",
        found=difference,
        expected="as many tensors, in the same order, of the same shapes",
        fix="leave finetuning.match out, and pair names by finetuning.key_map",
    )
