"""MONAI's ResNet, as MedicalNet's weights have it, with the decoder of its FlexibleUNet."""

from __future__ import annotations

from monai.networks.nets.flexible_unet import UNetDecoder
from monai.networks.nets.resnet import ResNet, ResNetFeatures, resnet_params
from torch import Tensor, nn

from hsf_finetune.config.settings import ResNetUNetSettings
from hsf_finetune.networks.anatomy import Anatomy, Part
from hsf_finetune.networks.layers.norms import norm_layer


class ResNetEncoder(ResNetFeatures):
    """A ResNet that gives the features of each level, of any width.

    Args:
        depth: its layers.
        width: channels of its first convolution.
        in_channels: channels of the image.
    """

    def __init__(self, depth: int, width: int, in_channels: int) -> None:
        block, layers, shortcuts, bias, _ = resnet_params[f"resnet{depth}"]
        # That of ResNetFeatures has one width, and downloads weights.
        ResNet.__init__(
            self,
            block=block,
            layers=layers,
            block_inplanes=[width * 2**level for level in range(4)],
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type=shortcuts,
            feed_forward=False,
            bias_downsample=bias,
        )
        # In the end these are the channels of the deepest level.
        self.widths = [width, *(self.in_planes // 2**level for level in (3, 2, 1, 0))]


class ResNetUNet(nn.Module):
    """A UNet whose encoder is a ResNet.

    Args:
        encoder: gives features of five levels, each half as fine as the one before.
        decoder: turns them into features of full resolution.
        head: turns these into logits.
    """

    def __init__(self, encoder: ResNetEncoder, decoder: UNetDecoder, head: nn.Conv3d) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z)."""
        features = self.decoder(self.encoder(x))
        logits: Tensor = self.head(features)
        return logits


def resnet_unet(settings: ResNetUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the UNet on a ResNet (Chen et al. 2019, "Med3D", arXiv:1904.00625).

    The encoder begins at half the resolution, so that the two finest decoder levels are one
    block.
    """
    encoder = ResNetEncoder(settings.depth, settings.width, in_channels)
    channels = settings.decoder_channels
    decoder = UNetDecoder(
        spatial_dims=3,
        encoder_channels=[in_channels, *encoder.widths],
        decoder_channels=channels,
        act=("relu", {"inplace": True}),
        norm=norm_layer(settings.norm, channels, settings.norm_groups),
        dropout=0.0,
        bias=False,
        upsample=settings.upsample,
        pre_conv="default",
        interp_mode="nearest",
        align_corners=None,
        is_pad=False,
    )
    network = ResNetUNet(encoder, decoder, nn.Conv3d(channels[-1], out_channels, 1))
    first = [encoder.conv1, encoder.bn1]
    down: list[Part] = [first, encoder.layer1, encoder.layer2, encoder.layer3]
    *deeper, second, finest = decoder.blocks
    up: list[Part] = [[second, finest], *deeper[::-1]]
    return Anatomy.of_levels(network, down, encoder.layer4, up, network.head, 32)
