"""A network with the head that its weights had: as many classes, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from hsf_finetune.config.settings import Settings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, channel_axes, class_axes
from hsf_finetune.weights.sources.given_weights import PretrainedWeights
from hsf_finetune.weights.transfer.class_rules import HeadPolicy
from hsf_finetune.weights.transfer.input_rules import InputRequest
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.receipt import Receipt
from hsf_finetune.weights.transfer.transfer_weights import transfer


def transfer_given(
    settings: Settings,
    anatomy: Anatomy,
    channels: int,
    source: PretrainedWeights,
    head: tuple[Sequence[str], HeadPolicy],
    load_all: bool = False,
) -> Receipt:
    """Loads weights into a network in the way that the settings ask for.

    Raises:
        ConfigError: what the settings say of the weights is not so.
        WeightsError: they do not fit.
    """
    tuning, (classes, policy) = settings.weights, head
    size = (channels, len(classes))
    axes = class_axes(settings.models, *size)
    request = HeadRequest(classes, axes, source.classes, source.derive_from, policy)
    inputs = InputRequest(
        channel_axes(settings.models, *size),
        settings.datasets.channel_names,
        tuning.source_channels,
        tuning.input_channels,
    )
    load = "all" if load_all else tuning.load
    matching = MatchRequest(tuning.match, tuning.key_map, load, tuning.allow_mismatch)
    return transfer(anatomy, source.checkpoint, request, inputs, matching, tuning.min_loaded)


def build_with_own_head(
    settings: Settings, source: PretrainedWeights, classes: Sequence[str], channels: int
) -> Anatomy:
    """The network of the settings with as many classes as the weights had, all weights loaded.

    Raises:
        ConfigError: what the settings say of the weights is not so.
        WeightsError: they do not fit.
    """
    own = replace(source, classes=tuple(classes), derive_from={})
    # Neither the order of later random numbers nor another network may depend on this.
    with torch.random.fork_rng(devices=[]):
        anatomy = build(settings.models, channels, len(classes))
    transfer_given(settings, anatomy, channels, own, (classes, "copy"), load_all=True)
    return anatomy
