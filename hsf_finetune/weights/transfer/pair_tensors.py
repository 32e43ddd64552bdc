"""Which tensor of a checkpoint goes to which of a network: by map, then by name or by order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.key_map import map_names
from hsf_finetune.weights.transfer.match_names import pair_by_name
from hsf_finetune.weights.transfer.receipt import Load
from hsf_finetune.weights.transfer.tensor_pairs import Axes, MatchedBy, TensorPairs, canonical_names

_ROLES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@dataclass(frozen=True)
class MatchRequest:
    """How tensors are to be paired, and what is to be taken of them.

    Args:
        by: names, or order and shape where names have nothing in common.
        key_map: checkpoint's name, or pattern, or prefix that ends in a dot, -> the network's.
        load: everything, all but the head, or the encoder alone.
        allow_mismatch: patterns of the names of tensors, of either side, that may stay
            without a counterpart, and of settings (`models.act`) that may differ.
    """

    by: Literal["name", "order"] = "name"
    key_map: Mapping[str, str] | None = None
    load: Load = "all"
    allow_mismatch: Sequence[str] = ()

    def allows(self, *names: str) -> bool:
        """Whether one of the names is allowed to differ."""
        return any(fnmatchcase(n, pattern) for n in names for pattern in self.allow_mismatch)


def pair_tensors(
    network: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    request: MatchRequest,
    loose: Axes,
    head: Collection[str],
) -> TensorPairs:
    """Pairs a network's tensors with a checkpoint's.

    Raises:
        ConfigError: an entry of the map leads nowhere.
        WeightsError: they are to be paired by order, and do not agree in order and shape.
    """
    state, canonical = network.state_dict(keep_vars=True), canonical_names(network)
    target = {name: state[name] for name in dict.fromkeys(canonical.values())}
    mapped = map_names(request.key_map or {}, tensors, canonical)
    chosen = {canonical[new]: old for old, new in mapped.items()}
    remaining = {name: tensor for name, tensor in tensors.items() if name not in mapped}
    missing = {name: tensor for name, tensor in target.items() if name not in chosen}
    ordered, difference = pair_by_order(remaining, missing, loose, head)
    matched_by: dict[str, MatchedBy] = dict.fromkeys(chosen, "key_map")
    if request.by == "order":
        if difference:
            raise WeightsError(
                "finetuning.match=order: the checkpoint's tensors are not those of this network "
                "under other names",
                found=difference,
                expected="as many tensors, in the same order, of the same shapes",
                fix="leave finetuning.match out, and pair names by finetuning.key_map",
            )
        # Another name of a tensor that is used has not been left out.
        used = {tensors[old].data_ptr() for old in ordered.values()}
        unused = tuple(n for n, tensor in remaining.items() if tensor.data_ptr() not in used)
        matched_by |= dict.fromkeys(ordered, "order")
        pairs = TensorPairs(target, {}, ordered, unused)
    else:
        pairs = pair_by_name(network, remaining)
        displaced = {pairs.origins[name] for name in chosen if name in pairs.origins}
        unused = tuple(n for n in remaining if n in pairs.unused or n in displaced)
        complete = bool(difference) or all(name in pairs.source for name in missing)
        pairs = replace(pairs, unused=unused, hint="" if complete else _order_hint(ordered))
    origins = pairs.origins | chosen
    source = {name: tensors[old] for name, old in origins.items()}
    return replace(pairs, source=source, origins=origins, matched_by=matched_by)


def pair_by_order(
    source: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
    loose: Axes,
    head: Collection[str],
) -> tuple[dict[str, str], str]:
    """Pairs tensors by their position, if both sides agree in number, order and shape.

    Shapes may differ along the axes that count classes or input channels. Where both
    names end in a word such as `weight` or `running_mean`, it has to be the same. A
    checkpoint may lack the head as a whole.

    Args:
        source: name -> tensor of the checkpoint; tensors that share their memory count once.
        target: name -> tensor of the network, in its order, each tensor once.
        loose: network's name -> axes of any extent.
        head: the network's names that count classes.

    Returns:
        Network's name -> checkpoint's name, and an empty text; or nothing, and where the
        two differ first.
    """
    distinct = _distinct(source)
    trunk = {name: tensor for name, tensor in target.items() if name not in head}
    wanted = trunk if len(distinct) == len(trunk) else target
    if difference := _difference(distinct, wanted, loose):
        return {}, difference
    return dict(zip(wanted, distinct, strict=True)), ""


# -------------------------------------------------------------------- internals
def _difference(
    source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], loose: Axes
) -> str:
    for number, (old, new) in enumerate(zip(source, target, strict=False), start=1):
        a, b = source[old].shape, target[new].shape
        same = len(a) == len(b) and all(
            n == m or axis in loose.get(new, ())
            for axis, (n, m) in enumerate(zip(a, b, strict=True))
        )
        # The last words of two names may contradict each other (weight, bias).
        if not same or len({name.rpartition(".")[2] for name in (old, new)} & _ROLES) == 2:
            return (
                f"tensor {number} is {old} {tuple(a)} in the checkpoint "
                f"and {new} {tuple(b)} in the network"
            )
    if len(source) != len(target):
        return f"{len(source)} tensors in the checkpoint, {len(target)} in the network"
    return ""


def _distinct(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each once under the first of its names."""
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        first.setdefault(key, name)
    return {name: tensors[name] for name in first.values()}


def _order_hint(ordered: Mapping[str, str]) -> str:
    shown = "".join(f"\n  {old} -> {new}" for new, old in list(ordered.items())[:3])
    return (
        f"all {len(ordered)} tensors agree with the network's in order and shape, though not in "
        f"name; if they are the same layers: finetuning.match=order{shown}"
    )
