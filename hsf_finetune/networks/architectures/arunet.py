"""HSF's ARUNet: a residual UNet with attention gates and switchable normalisation."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import gelu

from hsf_finetune.config.settings import ARUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.switchnorm import SwitchNorm
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError


class ResidualBlock(nn.Module):
    """Three convolutions, the first of which is added to the last before its non-linearity.

    Args:
        in_channels: channels of the input.
        out_channels: channels of all three.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels)
        self.conv2 = _convolution(out_channels, out_channels)
        self.conv3 = _convolution(out_channels, out_channels, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, X, Y, Z) to (B, out_channels, X, Y, Z)."""
        first: Tensor = self.conv1(x)
        return gelu(self.conv3(self.conv2(first)) + first)


class AttentionGate(nn.Module):
    """Multiplies a skip connection by weights that the decoder's features decide.

    Oktay et al. 2018 ("Attention U-Net", arXiv:1804.03999), with GELU for ReLU and the
    gating signal at the skip's own resolution.

    Args:
        channels: channels of the gating signal and of the skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.W_g = nn.Sequential(nn.Conv3d(channels, inner, 1), SwitchNorm(inner))
        self.W_x = nn.Sequential(nn.Conv3d(channels, inner, 1), SwitchNorm(inner))
        self.psi = nn.Sequential(nn.Conv3d(inner, 1, 1), SwitchNorm(1), nn.Sigmoid())

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        """The skip (B, channels, X, Y, Z), each voxel times a weight between 0 and 1."""
        weight: Tensor = self.psi(gelu(self.W_g(gate) + self.W_x(skip)))
        return skip * weight


class Decoder(nn.Module):
    """A decoder level: doubling, addition of the gated skip connection, a residual block.

    Args:
        in_channels: channels of the level below.
        out_channels: channels of this level.
        gated: whether the skip connection passes an attention gate.
    """

    def __init__(self, in_channels: int, out_channels: int, gated: bool) -> None:
        super().__init__()
        # This gives the skip's size, which is even: sizes are multiples of the divisor.
        doubling = nn.ConvTranspose3d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1
        )
        self.upsampling = nn.Sequential(OrderedDict(upsample=doubling))
        self.attention = AttentionGate(out_channels) if gated else None
        self.basic_module = ResidualBlock(out_channels, out_channels)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """(B, in_channels, X, Y, Z) and (B, out_channels, 2X, 2Y, 2Z) to the latter's shape."""
        gate: Tensor = self.upsampling(below)
        if self.attention is not None:
            skip = self.attention(gate, skip)
        features: Tensor = self.basic_module(gate + skip)
        return features


class ARUNet(nn.Module):
    """HSF's network (Poiret et al. 2023, doi:10.3389/fninf.2023.1130845).

    The names of its tensors are those of HSF's checkpoints without `_model.`. HSF's
    network ends in a softmax; this one gives logits.

    Args:
        in_channels: channels of the image.
        out_channels: classes, background included.
        f_maps: features at full resolution; each level doubles them.
        num_levels: levels, bottleneck included.
        use_attention: whether skip connections pass attention gates.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        f_maps: int,
        num_levels: int,
        use_attention: bool,
    ) -> None:
        super().__init__()
        widths = [in_channels, *(f_maps * 2**level for level in range(num_levels))]
        self.encoders = nn.ModuleList(
            _encoder(a, b, halves=level > 0) for level, (a, b) in enumerate(pairwise(widths))
        )
        up = widths[:0:-1]
        self.decoders = nn.ModuleList(Decoder(a, b, use_attention) for a, b in pairwise(up))
        self.final_conv = nn.Conv3d(f_maps, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z)."""
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
        for decoder, skip in zip(self.decoders, skips[-2::-1], strict=True):
            x = decoder(x, skip)
        logits: Tensor = self.final_conv(x)
        return logits


def arunet(settings: ARUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds HSF's network; `out_channels`, not `settings.hparams.out_channels`, counts.

    Raises:
        ConfigError: `settings.hparams.in_channels` contradicts the data.
    """
    given = settings.hparams
    if given.in_channels not in (None, in_channels):
        raise ConfigError(
            f"models.hparams.in_channels={given.in_channels} contradicts the data",
            found=count_of(in_channels, "channel"),
            fix=f"models.hparams.in_channels={in_channels}, or leave it out",
        )
    network = ARUNet(in_channels, out_channels, given.f_maps, given.num_levels, given.use_attention)
    *down, deepest = network.encoders
    up = list(network.decoders)[::-1]
    return Anatomy.of_levels(network, down, deepest, up, network.final_conv, 2 ** len(down))


def _encoder(in_channels: int, out_channels: int, halves: bool) -> nn.Sequential:
    """An encoder level: a convolution that halves X, Y and Z, and a residual block."""
    pooling: nn.Module = nn.Identity()
    if halves:
        pooling = nn.Conv3d(in_channels, in_channels, 3, stride=2, padding=1, bias=False)
    block = ResidualBlock(in_channels, out_channels)
    return nn.Sequential(OrderedDict(pooling=pooling, basic_module=block))


def _convolution(in_channels: int, out_channels: int, activated: bool = True) -> nn.Sequential:
    """A 3x3x3 convolution, GELU where `activated`, and normalisation: HSF's order `cgs`."""
    layers: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv3d(in_channels, out_channels, 3, padding=1)),
        ("SwitchNorm3d", SwitchNorm(out_channels)),
    ]
    if activated:
        layers.insert(1, ("GELU", nn.GELU()))
    return nn.Sequential(OrderedDict(layers))
