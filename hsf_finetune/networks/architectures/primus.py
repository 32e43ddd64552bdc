"""Primus: a vision transformer over patches of 8 voxels, and a small decoder."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from monai.networks.layers.drop_path import DropPath
from torch import Tensor, nn
from torch.nn import functional

from hsf_finetune.config.settings import PrimusSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.layers.axis_order import AxisOrder
from hsf_finetune.networks.layers.strides import Triple, triple

_PATCH, _LEVELS = 8, 3
"""Voxels along the side of a patch, and how often the decoder doubles the size."""
_SCALE = 0.1
"""What the output of a layer is multiplied by at the start of training."""
_SLOWEST = 10_000
"""The longest wave of positions, as in language (Su et al. 2021, arXiv:2104.09864)."""


class RotaryAttention(nn.Module):
    """Attention between patches that knows where they lie to each other (Eva-02, arXiv:2303.11331).

    Pairs of channels are turned by angles that grow with the position along X, Y or Z, so that
    the product of two patches depends on their distance.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, angles: Tensor) -> Tensor:
        """(B, patches, width) of the same, and of angles (patches, pairs of a head)."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in layers)
        q, k = (_turned(x, angles).to(v.dtype) for x in (q, k))
        seen = functional.scaled_dot_product_attention(q, k, v)
        attended: Tensor = self.proj(self.norm(seen.transpose(1, 2).flatten(2)))
        return attended

    def extra_repr(self) -> str:
        """What its tensors do not show, by which networks are told apart."""
        return f"heads={self.heads}"


class GatedLayers(nn.Module):
    """Two layers of which the first is gated (SwiGLU: Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inside = int(width * (4 * 2 / 3))
        self.fc1_g = nn.Linear(width, inside)
        self.fc1_x = nn.Linear(width, inside)
        self.norm = nn.LayerNorm(inside)
        self.fc2 = nn.Linear(inside, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, patches, width)."""
        gated = functional.silu(self.fc1_g(tokens)) * self.fc1_x(tokens)
        changed: Tensor = self.fc2(self.norm(gated))
        return changed


class PrimusLayer(nn.Module):
    """A layer of the transformer."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = RotaryAttention(width, heads), GatedLayers(width)
        self.gamma_1 = nn.Parameter(torch.full((width,), _SCALE))
        self.gamma_2 = nn.Parameter(torch.full((width,), _SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, angles: Tensor) -> Tensor:
        """(B, patches, width)."""
        attended = self.gamma_1 * self.attn(self.norm1(tokens), angles)
        tokens = tokens + self.drop_path(attended)
        changed: Tensor = self.drop_path(self.gamma_2 * self.mlp(self.norm2(tokens)))
        return tokens + changed


class EvaTransformer(nn.Module):
    """The transformer of Primus, whose learned positions are interpolated to other grids.

    Args:
        settings: widths and layers.
        grid: how many patches its positions are learned for, along each axis.
    """

    def __init__(self, settings: PrimusSettings, grid: Triple) -> None:
        super().__init__()
        width, heads, layers = settings.embed_dim, settings.num_heads, settings.depth
        self.grid, self.pairs = grid, width // heads // 6
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(grid), width))
        rates = [settings.drop_path * n / max(1, layers - 1) for n in range(layers)]
        blocks = [PrimusLayer(width, heads, rate) for rate in rates]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        with torch.no_grad():
            for number, block in enumerate(blocks, 1):
                block.attn.proj.weight.div_(math.sqrt(2 * number))
                block.mlp.fc2.weight.div_(math.sqrt(2 * number))

    def forward(self, features: Tensor) -> Tensor:
        """Features of patches (B, width, x, y, z), each of which has seen all others."""
        positions = self.pos_embed.transpose(1, 2).unflatten(2, self.grid)
        if tuple(features.shape[2:]) != self.grid:
            positions = functional.interpolate(positions, features.shape[2:], mode="trilinear")
        tokens, angles = (features + positions).flatten(2).transpose(1, 2), self._angles(features)
        for block in self.blocks:
            tokens = block(tokens, angles)
        seen: Tensor = self.norm(tokens).transpose(1, 2).reshape(features.shape)
        return seen

    def _angles(self, features: Tensor) -> Tensor:
        """By how much each patch turns each pair of channels: (patches, 3 * pairs)."""
        along = [torch.arange(n, device=features.device) for n in features.shape[2:]]
        grid = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1)
        share = torch.arange(self.pairs, device=features.device) / self.pairs
        return (grid[..., None] / _SLOWEST**share).flatten(3).flatten(0, 2)


class ChannelNorm(nn.LayerNorm):
    """Normalises the channels of each voxel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z)."""
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Primus(nn.Module):
    """Primus (Wald et al. 2025, arXiv:2503.01835), with the names of its library's tensors.

    Args:
        settings: widths, layers, and where its axes point.
        in_channels: channels of the image.
        out_channels: classes.
    """

    def __init__(self, settings: PrimusSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.order = AxisOrder(settings.orientation)
        x, y, z = (side // _PATCH for side in triple(settings.image_size))
        width, fine = settings.embed_dim, settings.decoder_channels
        self.down_projection = nn.ModuleDict(
            {"proj": nn.Conv3d(in_channels, width, _PATCH, _PATCH)}
        )
        self.eva = EvaTransformer(settings, (x, y, z))
        doubling = [
            nn.Sequential(nn.ConvTranspose3d(a, b, 2, 2), ChannelNorm(b, 1e-6), nn.GELU())
            for a, b in pairwise([width, *fine])
        ]
        last = nn.ConvTranspose3d(fine[-1], out_channels, 2, 2)
        self.up_projection = nn.ModuleDict({"decode": nn.Sequential(*doubling, last)})
        for layer in (*self.down_projection.modules(), *self.up_projection.modules()):
            if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(layer.weight, a=1e-2)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, out_channels, X, Y, Z) of images (B, in_channels, X, Y, Z) that are RAS+."""
        patches = self.down_projection["proj"](self.order.to_network(image))
        return self.order.to_image(self.up_projection["decode"](self.eva(patches)))


def primus(settings: PrimusSettings, in_channels: int, out_channels: int) -> Anatomy:
    """Builds Primus, whose only skip connections are inside its transformer.

    Its decoder has two levels below the head, which gives full resolution itself. The layers of
    the transformer are shared out evenly among the encoders and the bottleneck; patches and
    positions belong to the first.
    """
    network = Primus(settings, in_channels, out_channels)
    eva, layers = network.eva, list(network.eva.blocks)
    ends = [len(layers) * n // (_LEVELS + 1) for n in range(_LEVELS + 2)]
    shares = [layers[a:b] for a, b in pairwise(ends)]
    first = [network.down_projection, nn.ParameterList([eva.pos_embed])]
    down = [[*first, *shares[0]], *shares[1:-1]]
    deeper, finer, head = network.up_projection["decode"].children()
    return Anatomy.of_levels(network, down, [*shares[-1], eva.norm], [finer, deeper], head, _PATCH)


# -------------------------------------------------------------------- internals
def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Channels (B, heads, patches, 2 * pairs), each pair of neighbours turned by its angle."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
