"""The networks of nnU-Net v2, for images with RAS+ axes."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.axis_order import AxisOrder
from hsf_finetune.networks.layers.deep_supervision import stack_levels
from hsf_finetune.networks.layers.strides import Triple, divisor, triple
from hsf_finetune.system.errors import ConfigError


class OrientedUNet(nn.Module):
    """A UNet that was trained on images with axes of another order or direction.

    Its tensors have nnU-Net's names.

    Args:
        network: a PlainConvUNet or ResidualEncoderUNet, without deep supervision.
        orientation: direction of its axes, such as `SAR`.
        deep_supervision: whether it gives, in training, logits of every level but the two
            deepest, as nnU-Net does.
    """

    def __init__(self, network: Any, orientation: str, deep_supervision: bool) -> None:
        super().__init__()
        self.encoder: Any = network.encoder
        self.decoder: Any = network.decoder
        self.deep_supervision = deep_supervision
        self.order = AxisOrder(orientation)
        heads = len(self.decoder.seg_layers)
        self.levels = max(1, heads - 1) if deep_supervision else 1
        # A head that no loss reaches would not train with the rest.
        for head in range(heads - self.levels):
            self.decoder.seg_layers[head] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (B, in_channels, X, Y, Z) that are RAS+.

        Returns:
            (B, out_channels, X, Y, Z); with deep supervision in training
            (B, levels, out_channels, X, Y, Z), finest level first, the coarser ones
            brought to full size by repetition.
        """
        logits = self.decoder(self.encoder(self.order.to_network(x)))
        if isinstance(logits, list):
            logits = stack_levels(logits[: self.levels])
        return self.order.to_image(logits)

    def train(self, mode: bool = True) -> OrientedUNet:
        """Training or evaluation mode; the latter gives logits of full resolution only."""
        super().train(mode)
        self.decoder.deep_supervision = mode and self.deep_supervision
        return self


def nnunet(settings: NnUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds nnU-Net's network (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    The stem of a residual encoder belongs to the first encoder block. With deep
    supervision, the convolutions to logits of all levels belong to the head.

    Raises:
        ConfigError: the library of these networks is not installed, or refuses the settings.
    """
    stages = len(settings.features_per_stage)
    strides = [triple(size) for size in settings.strides or [1] + [2] * (stages - 1)]
    plain = _build_plain(settings, strides, in_channels, out_channels)
    network = OrientedUNet(plain, settings.orientation, settings.deep_supervision).train()
    encoder, decoder = network.encoder, network.decoder
    down = [[stage] for stage in encoder.stages]
    if settings.architecture == "ResidualEncoderUNet":
        down[0].insert(0, encoder.stem)
    up = list(zip(decoder.transpconvs, decoder.stages, strict=True))[::-1]
    finest_first = list(decoder.seg_layers)[::-1]
    heads = tuple(head for head in finest_first if not isinstance(head, nn.Identity))
    multiples = network.order.along_image(divisor(strides))
    return Anatomy.of_levels(network, down[:-1], down[-1], up, heads, multiples)


def _build_plain(
    settings: NnUNetSettings, strides: list[Triple], in_channels: int, out_channels: int
) -> nn.Module:
    """The library's network, initialised as nnU-Net does."""
    stages = len(settings.features_per_stage)
    given: dict[str, Any] = {
        "input_channels": in_channels,
        "num_classes": out_channels,
        "n_stages": stages,
        "features_per_stage": settings.features_per_stage,
        "conv_op": nn.Conv3d,
        "kernel_sizes": [triple(size) for size in settings.kernel_sizes or [3] * stages],
        "strides": strides,
        "n_conv_per_stage_decoder": settings.n_conv_per_stage_decoder,
        "conv_bias": settings.conv_bias,
        "norm_op": getattr(nn, settings.norm_op) if settings.norm_op else None,
        "norm_op_kwargs": settings.norm_op_kwargs,
        "dropout_op": getattr(nn, settings.dropout_op) if settings.dropout_op else None,
        "dropout_op_kwargs": settings.dropout_op_kwargs,
        "nonlin": getattr(nn, settings.nonlin),
        "nonlin_kwargs": settings.nonlin_kwargs,
        # `OrientedUNet.train` sets it; the decoder has the heads of all levels either way.
        "deep_supervision": False,
    }
    blocks = settings.n_blocks_per_stage
    if settings.architecture == "PlainConvUNet":
        given |= {"n_conv_per_stage": blocks, "nonlin_first": settings.nonlin_first}
    else:
        given |= {"n_blocks_per_stage": blocks, "stem_channels": settings.stem_channels}
    try:
        library = importlib.import_module("dynamic_network_architectures.architectures.unet")
    except ImportError as error:
        raise ConfigError(
            "models=nnunet needs the library dynamic-network-architectures",
            found=error,
            fix="pip install 'hsf-finetune[nnunet]'",
        ) from error
    network_class = getattr(library, settings.architecture)
    try:
        network: Any = network_class(**given)
        if settings.decoder_kernels == "below":
            kernels = given["kernel_sizes"]
            shifted = network_class(**given | {"kernel_sizes": [*kernels[1:], kernels[-1]]})
            network.decoder.stages = shifted.decoder.stages
    except TypeError as error:
        raise ConfigError(
            "the network's layers cannot be made with these settings",
            found=error,
            fix="see models.norm_op_kwargs, dropout_op_kwargs and nonlin_kwargs",
        ) from error
    initialised: nn.Module = network.apply(network_class.initialize)
    return initialised
