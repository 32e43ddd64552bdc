"""Pairing tensors by their order, where their names have nothing in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from hsf_finetune.weights.transfer.tensor_pairs import Axes

_ROLES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


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


def _difference(
    source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], loose: Axes
) -> str:
    for number, (old, new) in enumerate(zip(source, target, strict=False), start=1):
        a, b = source[old].shape, target[new].shape
        same = len(a) == len(b) and all(
            n == m or axis in loose.get(new, ())
            for axis, (n, m) in enumerate(zip(a, b, strict=True))
        )
        if not same or _roles_differ(old, new):
            return (
                f"tensor {number} is {old} {tuple(a)} in the checkpoint "
                f"and {new} {tuple(b)} in the network"
            )
    if len(source) != len(target):
        return f"{len(source)} tensors in the checkpoint, {len(target)} in the network"
    return ""


def _roles_differ(a: str, b: str) -> bool:
    """Whether the last words of two names contradict each other (weight, bias)."""
    return len({name.rpartition(".")[2] for name in (a, b)} & _ROLES) == 2


def _distinct(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each once under the first of its names."""
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        first.setdefault(key, name)
    return {name: tensors[name] for name in first.values()}
