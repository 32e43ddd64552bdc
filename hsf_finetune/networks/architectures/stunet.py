"""STU-Net, for images with RAS+ axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from hsf_finetune.config.settings import STUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.axis_order import AxisOrder
from hsf_finetune.networks.layers.strides import Triple, divisor, triple

_SLOPE = 0.01


class STUNetBlock(nn.Module):
    """Two convolutions with instance norms, and a third one around them where sizes change.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: of the two convolutions (odd).
        stride: of the first one; None adds the input as it is.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple | None = None
    ) -> None:
        super().__init__()
        x, y, z = (side // 2 for side in kernel)
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel, stride or 1, (x, y, z))
        self.norm1 = nn.InstanceNorm3d(out_channels, affine=True)
        self.conv2 = nn.Conv3d(out_channels, out_channels, kernel, padding=(x, y, z))
        self.norm2 = nn.InstanceNorm3d(out_channels, affine=True)
        self.conv3 = nn.Conv3d(in_channels, out_channels, 1, stride) if stride else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, X, Y, Z) to (B, out_channels, ...), smaller by the stride."""
        y = leaky_relu(self.norm1(self.conv1(x)), _SLOPE)
        y = self.norm2(self.conv2(y))
        return leaky_relu(y + (x if self.conv3 is None else self.conv3(x)), _SLOPE)


class STUNetUpsampling(nn.Module):
    """A 1x1x1 convolution, and repetition of voxels.

    Args:
        in_channels: channels of the level below.
        out_channels: channels of this level.
        stride: how many times each voxel is repeated along each axis.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Triple) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1)
        self._factors = tuple(float(factor) for factor in stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, X, Y, Z) to (B, out_channels, ...), larger by the stride."""
        # The original repeats first, which gives the same with more work.
        return interpolate(self.conv(x), scale_factor=self._factors)


class STUNet(nn.Module):
    """STU-Net's network; its tensors have the published names. It segments at one level.

    Args:
        settings: widths, kernels, strides and blocks.
        in_channels: channels of the image.
        out_channels: classes, background included.
    """

    def __init__(self, settings: STUNetSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = settings.features_per_stage
        stages = len(widths)
        kernels = [triple(size) for size in settings.kernel_sizes or [3] * stages]
        strides = [triple(size) for size in settings.strides or [1] + [2] * (stages - 1)]
        given = settings.n_blocks_per_stage
        blocks = [given] * stages if isinstance(given, int) else given
        self.order = AxisOrder(settings.orientation)
        self.strides = strides
        self.conv_blocks_context = nn.ModuleList(
            _stage([before, *[width] * count], kernel, stride)
            for before, width, count, kernel, stride in zip(
                [in_channels, *widths], widths, blocks, kernels, strides, strict=False
            )
        )
        # From the deepest level up.
        levels = range(stages - 2, -1, -1)
        self.upsample_layers = nn.ModuleList(
            STUNetUpsampling(widths[n + 1], widths[n], strides[n + 1]) for n in levels
        )
        self.conv_blocks_localization = nn.ModuleList(
            _stage([2 * widths[n], *[widths[n]] * blocks[n]], kernels[n], (1, 1, 1)) for n in levels
        )
        coarser = [nn.Identity() for _ in levels[:-1]]
        self.seg_outputs = nn.ModuleList([*coarser, nn.Conv3d(widths[0], out_channels, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z) that are RAS+."""
        x = self.order.to_network(x)
        skips: list[Tensor] = []
        for stage in self.conv_blocks_context:
            x = stage(x)
            skips.append(x)
        ups = zip(self.upsample_layers, self.conv_blocks_localization, skips[-2::-1], strict=True)
        for upsampling, stage, skip in ups:
            x = stage(torch.cat((upsampling(x), skip), dim=1))
        return self.order.to_image(self.seg_outputs[-1](x))


def stunet(settings: STUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the STU-Net (Huang et al. 2023, arXiv:2304.06716), initialised as nnU-Net's."""
    network = STUNet(settings, in_channels, out_channels)
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, a=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    *down, deepest = network.conv_blocks_context
    pairs = zip(network.upsample_layers, network.conv_blocks_localization, strict=True)
    up = [[*pair] for pair in pairs][::-1]
    multiples = network.order.along_image(divisor(network.strides))
    return Anatomy.of_levels(network, down, deepest, up, network.seg_outputs[-1], multiples)


def _stage(widths: Sequence[int], kernel: Triple, stride: Triple) -> nn.Sequential:
    """Blocks between consecutive widths, the first of which has the stride."""
    first = STUNetBlock(widths[0], widths[1], kernel, stride)
    return nn.Sequential(first, *(STUNetBlock(width, width, kernel) for width in widths[2:]))
