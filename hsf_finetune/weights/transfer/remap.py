"""Tensors whose channels are put together out of those of another tensor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from hsf_finetune.weights.transfer.names import Match


def along(value: torch.Tensor, axes: Sequence[int], shares: torch.Tensor) -> torch.Tensor:
    """A tensor with each of some axes mixed anew: new[j] = sum over i of shares[j, i] old[i].

    Args:
        value: of extent N along the axes.
        axes: which.
        shares: (M, N).

    Returns:
        The tensor, of extent M along the axes.
    """
    shares = shares.to(device=value.device, dtype=value.dtype)
    for axis in axes:
        value = torch.tensordot(shares, value, dims=([1], [axis])).movedim(0, axis)
    return value


def counted(match: Match, axes: Mapping[str, Collection[int]]) -> int | None:
    """The extent of a checkpoint's tensors along some axes; None where they do not agree."""
    extents = {
        match.there[name].shape[axis]
        for name, own in axes.items()
        for axis in own
        if name in match.there and match.there[name].dim() > axis
    }
    return extents.pop() if len(extents) == 1 else None


def mismatch(name: str, match: Match, axes: Collection[int], extent: int | None) -> str:
    """Why a tensor's shape does not fit, in words; empty if it does.

    Args:
        name: of the network.
        match: both sides.
        axes: axes that are put together anew.
        extent: what the checkpoint's tensors should have along these.
    """
    there, here = match.there[name].shape, match.here[name].shape
    fits = len(there) == len(here) and all(
        a == extent if axis in axes else a == b
        for axis, (a, b) in enumerate(zip(there, here, strict=True))
    )
    return "" if fits else f"{tuple(there)} in the checkpoint, {tuple(here)} here"
