"""Pairing two lists of tensors by their order, where their names have nothing in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

Axes = Mapping[str, tuple[int, ...]]

_ROLES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def pair_by_order(
    here: Mapping[str, torch.Tensor],
    there: Mapping[str, torch.Tensor],
    loose: Axes,
    head: Collection[str],
) -> tuple[dict[str, str], str]:
    """Pairs tensors by their place, if both sides agree in number, order and shape.

    Shapes may differ along the axes that count classes or input channels. Where both
    names end in a word such as `weight` or `running_mean`, that has to be the same. A
    checkpoint may lack the head as a whole.

    Args:
        here: network's name -> tensor, in the network's order, aliases left out.
        there: the same of the checkpoint; tensors that share their memory count once.
        loose: network's name -> axes of any extent.
        head: the network's names that count classes.

    Returns:
        Checkpoint's name -> network's name, and an empty text; or nothing, and where the
        two differ first.
    """
    distinct = _distinct(there)
    trunk = {name: tensor for name, tensor in here.items() if name not in head}
    mine = trunk if len(distinct) == len(trunk) else dict(here)
    if difference := _difference(mine, distinct, loose):
        return {}, difference
    return dict(zip(distinct, mine, strict=True)), ""


def _difference(
    here: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor], loose: Axes
) -> str:
    for place, (mine, theirs) in enumerate(zip(here, there, strict=False), start=1):
        a, b = here[mine].shape, there[theirs].shape
        same = len(a) == len(b) and all(
            n == m or axis in loose.get(mine, ())
            for axis, (n, m) in enumerate(zip(a, b, strict=True))
        )
        if not same or not _alike(mine, theirs):
            return f"tensor {place} is {theirs} {tuple(b)} there and {mine} {tuple(a)} here"
    if len(here) != len(there):
        return f"{len(there)} tensors there, {len(here)} here"
    return ""


def _alike(a: str, b: str) -> bool:
    """Whether the last words of two names do not contradict each other."""
    last = {name.rpartition(".")[2] for name in (a, b)} & _ROLES
    return len(last) < 2


def _distinct(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each once under the first of its names."""
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        first.setdefault(key, name)
    return {name: tensors[name] for name in first.values()}
