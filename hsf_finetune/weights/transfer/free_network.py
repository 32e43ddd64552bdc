"""Networks outside of any run, for a notebook: building one, and loading weights into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, channel_axes, class_axes
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import ConfigError

if TYPE_CHECKING:
    from hsf_finetune.weights.transfer.receipt import Receipt


@dataclass(frozen=True)
class Network:
    """A network with its size.

    Args:
        anatomy: its parts; `anatomy.network` is the torch module.
        settings: which network it is.
        in_channels: channels of the image.
        out_channels: classes, background included.
    """

    anatomy: Anatomy
    settings: NetworkSettings
    in_channels: int
    out_channels: int


def build_network(name: str, in_channels: int, out_channels: int, **settings: Any) -> Network:
    """A freshly initialised network of `conf/models`, outside of any run.

    Args:
        name: `unet`, `dynunet`, `segresnet`, `swinunetr`, `nnunet`, `arunet`, ...
        in_channels: channels of the image.
        out_channels: classes, background included.
        settings: as in `conf/models/NAME.yaml`: `channels=[16, 32, 64]`.

    Returns:
        The network; `.anatomy.network` maps (batch, in_channels, x, y, z) to logits
        (batch, out_channels, x, y, z), where x, y and z are multiples of `.anatomy.divisor`.

    Raises:
        ConfigError: there is no such network, or a setting is wrong.

    Examples:
        >>> import torch
        >>> import hsf_finetune as hf
        >>> network = hf.build_network("unet", 1, 3, channels=[4, 8], strides=[2])
        >>> network.anatomy.network(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 3, 8, 8, 8])
    """
    try:
        chosen = validate_network({"name": name, **settings})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, d['loc'][1:])) or name}: {d['msg']}" for d in error.errors()]
        raise ConfigError("there is no such network", found="\n".join(lines)) from error
    return Network(build(chosen, in_channels, out_channels), chosen, in_channels, out_channels)


def transfer(
    network: Network,
    weights: str | Path,
    classes: Sequence[str],
    *,
    source_classes: Sequence[str] | None = None,
    derive_from: Mapping[str, str | Sequence[str]] | None = None,
    min_loaded: float = 1.0,
) -> Receipt:
    """Loads pretrained weights into a network, in place, with a receipt.

    The trunk loads by name and shape, the head class by class: copied, split, merged or made
    of the background class, exactly where that is possible (docs: Weights).

    Args:
        network: from `build_network`.
        weights: a checkpoint, a run's folder, a MONAI bundle or an nnU-Net folder.
        classes: class of each output channel of the network, background first.
        source_classes: class of each output channel of weights that do not say.
        derive_from: class -> class or classes of the source that it comes out of.
        min_loaded: smallest share of the trunk that must load.

    Returns:
        What became of each tensor and of each class.

    Raises:
        WeightsError: the weights cannot be read, or too little of the trunk fits.
        ConfigError: a class does not exist, or the number of classes is not the network's.

    Examples:
        >>> import hsf_finetune as hf
        >>> network = hf.build_network("unet", 1, 3, channels=[4, 8], strides=[2], features=4,
        ...                            num_res_units=1)
        >>> receipt = hf.transfer(network, "outputs/source", ["background", "front", "back"],
        ...                       derive_from={"front": "blob", "back": "blob"})
        >>> receipt.share_loaded
        1.0
    """
    from hsf_finetune.weights.sources.read_source import read_source
    from hsf_finetune.weights.transfer.input_rules import InputRequest
    from hsf_finetune.weights.transfer.plan_head import HeadRequest
    from hsf_finetune.weights.transfer.transfer_weights import transfer as transfer_into

    if len(classes) != network.out_channels:
        raise ConfigError(
            "as many classes are needed as the network has outputs",
            found=", ".join(classes),
            expected=f"{network.out_channels} names, background first",
        )
    size = (network.in_channels, network.out_channels)
    head = HeadRequest(
        classes, class_axes(network.settings, *size), source_classes, dict(derive_from or {})
    )
    inputs = InputRequest(channel_axes(network.settings, *size))
    checkpoint = read_source(weights)
    return transfer_into(network.anatomy, checkpoint, head, inputs, min_loaded=min_loaded)
