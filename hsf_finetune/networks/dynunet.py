"""MONAI's DynUNet, the network of nnU-Net."""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.nets.dynunet import DynUNet

from hsf_finetune.networks.anatomy import Anatomy, Block
from hsf_finetune.networks.norms import norm_layer
from hsf_finetune.settings import DynUNetSettings


def dynunet(settings: DynUNetSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds the DynUNet (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    Kernels of 3, full resolution on the first level and a halving before each
    further one; no deep supervision.
    """
    levels = len(settings.channels)
    network = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=settings.channels,
        dropout=settings.dropout or None,
        norm_name=norm_layer(settings.norm, settings.channels),
        res_block=settings.residual,
    )
    # DynUNet's own output block would drop out logits.
    network.output_block = UnetOutBlock(3, settings.channels[0], out_channels)
    network.output_block.apply(network.initialize_weights)
    down = (network.input_block, *network.downsamples)
    up = tuple(network.upsamples)[::-1]
    stride = 2 ** (levels - 1)
    return Anatomy(
        network=network,
        encoders=tuple(Block(f"encoder{i}", (m,)) for i, m in enumerate(down, 1)),
        bottleneck=Block("bottleneck", (network.bottleneck,)),
        decoders=tuple(Block(f"decoder{i}", (m,)) for i, m in enumerate(up, 1))[::-1],
        head=Block("head", (network.output_block,)),
        divisor=(stride, stride, stride),
    )
