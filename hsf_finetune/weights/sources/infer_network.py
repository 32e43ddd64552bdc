"""Finds which network a plain state dict belongs to, from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import ValidationError

from hsf_finetune.networks.pretrained_network import (
    override_line,
    unknown_network_error,
    validate_network,
)
from hsf_finetune.system.console import shorten_list
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.network_shapes import READERS
from hsf_finetune.weights.sources.tensor_shapes import TensorShapes, first_name
from hsf_finetune.weights.transfer.match_names import pair_by_name

_SHOWN = 4


@dataclass(frozen=True)
class NetworkMatch:
    """A network as read from a checkpoint, compared with its tensors.

    Args:
        models: its settings as plain values.
        channels: of its inputs, and of its outputs.
        assumed: names of the settings that neither names nor shapes tell.
        size: how many tensors the network has; 0 if it cannot be built.
        missing: its tensors that the checkpoint lacks, or has in another shape, each with why.
        problems: what else is wrong: tensors that the network lacks inside its trunk, or
            why it cannot be built.
        encoder_alone: whether the tensors that fit are all of the encoder, and no others.
        headless: whether nothing is missing but the whole head.
    """

    models: dict[str, Any]
    channels: tuple[int, int]
    assumed: tuple[str, ...] = ()
    size: int = 0
    missing: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    encoder_alone: bool = False
    headless: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether every tensor fits; of weights of an encoder or a trunk alone, each of its own."""
        whole = self.encoder_alone or self.headless or not self.missing
        return whole and not self.problems

    @property
    def share(self) -> float:
        """The share of the network's tensors that fit."""
        return 1 - len(self.missing) / self.size if self.size else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell the user, line by line."""
        line = override_line(self.models)
        told = f"the network follows from the names and shapes of the weights: {line}"
        if not self.assumed:
            return (told,)
        values = ", ".join(f"{name}={self.models[name]}" for name in self.assumed)
        return (
            told,
            f"they do not show {values}, which are the usual values; if the weights were made "
            "with others, write these overrides, corrected, in place of models=pretrained",
        )


def with_inferred_network(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the network that its tensors tell, where it does not record one.

    Its `origin` then has what was told (`inferred`), and the names of the settings that
    were not (`assumed`).
    """
    if checkpoint.models:
        return checkpoint
    try:
        match = next((m for m in compare_networks(checkpoint.tensors) if m.is_exact), None)
    except WeightsError:
        # Copies of a network that differ are refused when they are to be loaded.
        match = None
    if match is None:
        return checkpoint
    told = {"inferred": list(match.notes), "assumed": list(match.assumed)}
    return replace(
        checkpoint,
        models=match.models,
        in_channels=match.channels[0],
        origin={**checkpoint.origin, **told},
    )


def compare_networks(tensors: Mapping[str, torch.Tensor]) -> Iterator[NetworkMatch]:
    """Each network whose first convolution is in a checkpoint, as its tensors tell it.

    Raises:
        WeightsError: they hold several copies of a network, and those differ.
    """
    names = [first_name(name) for name in tensors]
    for kind, reader in READERS.items():
        stems = [f"{stem}.weight" for stem in reader.stems]
        found = [(n.removesuffix(s), s) for s in stems for n in names if f".{n}".endswith(f".{s}")]
        # Of networks inside or beside each other, the outermost or the first.
        for prefix, stem in sorted(found, key=lambda pair: (len(pair[0]), pair))[:1]:
            shapes = TensorShapes(tensors, prefix)
            try:
                models = {"name": kind, **reader.read(shapes)}
                in_channels = shapes.tensors[stem].shape[1]
            except (LookupError, ValueError, ArithmeticError, RuntimeError):
                continue
            heads = (shapes.tensors.get(f"{head}.bias") for head in reader.heads)
            out_channels = next((head.numel() for head in heads if head is not None), 2)
            read = NetworkMatch(models, (in_channels, out_channels), tuple(shapes.assumed))
            yield _compared(read, tensors)


def unrecognised_network_error(checkpoint: Checkpoint) -> ConfigError:
    """The error for `models=pretrained` with weights that are of no network of this package.

    Raises:
        WeightsError: they hold several copies of a network, and those differ.
    """
    tried = f"names and shapes are of none of {', '.join(READERS)}"
    nearest = max(compare_networks(checkpoint.tensors), key=lambda m: m.share, default=None)
    if nearest is None:
        names = shorten_list(list(checkpoint.tensors), _SHOWN)
        return unknown_network_error(checkpoint.path, f"{tried}, but {names}")
    fit = nearest.size - len(nearest.missing)
    lines = [
        tried,
        f"nearest: {nearest.models['name']}, {fit} of {nearest.size} tensors fit",
        *(f"{name}: {why}" for name, why in list(nearest.missing.items())[:_SHOWN]),
        *nearest.problems,
    ]
    line = override_line(nearest.models)
    return unknown_network_error(checkpoint.path, "\n".join(lines), f"the nearest is {line}")


# -------------------------------------------------------------------- internals
def _compared(read: NetworkMatch, tensors: Mapping[str, torch.Tensor]) -> NetworkMatch:
    """Builds the network without memory, and compares names and shapes."""
    # Imported late: MONAI imports all of itself, and weights of this package name their network.
    from hsf_finetune.networks.build import build_shapes

    try:
        settings = validate_network(read.models)
        anatomy = build_shapes(settings, *read.channels)
    except ValidationError as error:
        wrong = tuple(f"{d['loc'][-1]}: {d['msg']}" for d in error.errors())
        return replace(read, problems=wrong)
    except (ConfigError, AssertionError, RuntimeError, ValueError) as error:
        return replace(read, problems=(str(error),))
    pairs = pair_by_name(anatomy.network, tensors)
    missing = {name: why for name in pairs.target if (why := pairs.mismatch(name))}
    encoder = anatomy.encoder_names()
    trunk = {name for name, block in anatomy.tensor_block().items() if block != anatomy.head.name}
    beyond = [name for name, place in pairs.places.items() if place.is_within(trunk)]
    return replace(
        read,
        size=len(pairs.target),
        missing=missing,
        problems=(f"not in that network: {shorten_list(beyond, _SHOWN)}",) if beyond else (),
        encoder_alone=pairs.source.keys() - missing.keys() == encoder & pairs.target.keys(),
        headless=missing.keys() == pairs.target.keys() - trunk - pairs.source.keys(),
    )
