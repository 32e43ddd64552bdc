"""Reads the settings of networks of published weights from the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hsf_finetune.weights.sources.tensor_shapes import ShapeReader, TensorShapes

_PATCH, _PRIMUS_PATCH = 16, 8
_RESNETS = {
    (1, 1, 1, 1): (10, 10), (2, 2, 2, 2): (18, 18), (3, 4, 6, 3): (34, 50),
    (3, 4, 23, 3): (101, 101), (3, 8, 36, 3): (152, 152), (3, 24, 36, 3): (200, 200),
}  # fmt: skip
"""Blocks per level -> layers of the ResNet, with blocks of two convolutions and of three."""


def _segresnet_ds(shapes: TensorShapes) -> dict[str, Any]:
    levels = shapes.count("encoder.layers.{}.blocks.0.conv1")
    ups = [f"up_layers.{n}" for n in range(levels - 1)]
    heads = sum(f"{up}.head.weight" in shapes for up in ups)
    sizes = [shapes.kernel(f"encoder.layers.{n}.blocks.0.conv1") for n in range(levels)]
    return {
        "init_filters": shapes.width("encoder.conv_init"),
        "blocks_down": [
            shapes.count(f"encoder.layers.{n}.blocks.{{}}.conv1") for n in range(levels)
        ],
        "blocks_up": [shapes.count(f"{up}.blocks.{{}}.conv1") for up in ups],
        "norm": shapes.norm("encoder.layers.0.blocks.0.norm1", "batch"),
        "upsample": shapes.upsampling("up_layers."),
        "resolution": _resolution(sizes),
        "deep_supervision": heads > 1,
        "deep_supr_num": max(1, heads - 1),
    }


def _resolution(sizes: Sequence[int | list[int]]) -> list[float] | None:
    """The voxel size in proportion, from kernels: an axis that is not halved yet has one of 1."""
    before = [size for size in sizes if isinstance(size, list)]
    halved = [sum(size[axis] > 1 for size in before) for axis in range(3)]
    return [float(2 ** (len(before) - n)) for n in halved] if before else None


def _unetr(shapes: TensorShapes) -> dict[str, Any]:
    patches = shapes.tensors["vit.patch_embedding.position_embeddings"].shape[1]
    hidden = shapes.width("vit.patch_embedding.patch_embeddings")
    shapes.assumed += ["num_heads", "image_size"]
    return {
        "feature_size": shapes.width("encoder1.layer.conv1.conv"),
        "hidden_size": hidden,
        "mlp_dim": shapes.width("vit.blocks.0.mlp.linear1"),
        "num_heads": next(n for n in (12, 16, 8, 6, 4, 3, 2, 1) if hidden % n == 0),
        "image_size": _PATCH * round(patches ** (1 / 3)),
        "norm": shapes.norm("encoder1.layer.norm1", "instance"),
    }


def _mednext(shapes: TensorShapes) -> dict[str, Any]:
    levels = shapes.count("down_blocks.{}.conv1")
    down = [f"enc_stages.{n}" for n in range(levels)]
    up = [f"dec_stages.{n}" for n in range(levels)]

    def expansion(stage: str) -> int:
        wide, narrow = shapes.tensors[f"{stage}.0.conv2.weight"].shape[:2]
        return wide // narrow

    return {
        "init_filters": shapes.width("stem"),
        "kernel_size": shapes.kernel("enc_stages.0.0.conv1"),
        "encoder_expansion": [expansion(stage) for stage in down],
        "bottleneck_expansion": expansion("bottleneck"),
        "decoder_expansion": [expansion(stage) for stage in up],
        "blocks_down": [shapes.count(f"{stage}.{{}}.conv1") for stage in down],
        "blocks_bottleneck": shapes.count("bottleneck.{}.conv1"),
        "blocks_up": [shapes.count(f"{stage}.{{}}.conv1") for stage in up],
        "residual": "down_blocks.0.res_conv.weight" in shapes,
        "response_norm": "enc_stages.0.0.global_resp_beta" in shapes,
        "deep_supervision": "out_blocks.0.conv_out.weight" in shapes,
    }


def _resnet_unet(shapes: TensorShapes) -> dict[str, Any]:
    encoder = "encoder." if "encoder.conv1.weight" in shapes else ""
    layers = [shapes.count(f"{encoder}layer{n}.{{}}.conv1") for n in range(1, 5)]
    of_three = f"{encoder}layer1.0.conv3.weight" in shapes
    models: dict[str, Any] = {
        "depth": _RESNETS[tuple(layers)][of_three],  # type: ignore[index]
        "width": shapes.width(f"{encoder}conv1"),
    }
    if "decoder.blocks.0.convs.conv_0.conv.weight" not in shapes:
        return models
    blocks = [f"decoder.blocks.{n}" for n in range(5)]
    return models | {
        "decoder_channels": [shapes.width(f"{block}.convs.conv_0.conv") for block in blocks],
        "norm": shapes.norm("decoder.blocks.0.convs.conv_0.adn.N", "instance"),
        "upsample": shapes.upsampling("decoder.blocks."),
    }


def _stunet(shapes: TensorShapes) -> dict[str, Any]:
    stages = shapes.count("conv_blocks_context.{}.0.conv1")
    down = [f"conv_blocks_context.{n}" for n in range(stages)]
    shapes.assumed += ["orientation", "strides"]
    return {
        "orientation": "RAS",
        "features_per_stage": [shapes.width(f"{stage}.0.conv1") for stage in down],
        "kernel_sizes": [shapes.kernel(f"{stage}.0.conv1") for stage in down],
        "strides": [1] + [2] * (stages - 1),
        "n_blocks_per_stage": [shapes.count(f"{stage}.{{}}.conv1") for stage in down],
    }


def _anatomix(shapes: TensorShapes) -> dict[str, Any]:
    layers = {n: t for n, t in shapes.tensors.items() if n.startswith("model.")}
    kernels = {int(n.split(".")[1]): t for n, t in layers.items() if t.dim() == 5}
    convs = [kernels[number] for number in sorted(kernels)]
    batch = "model.1.running_mean" in shapes
    shapes.assumed += ["pooling", "upsample", *([] if batch else ["norm_eps"])]
    rest = {"norm": "batch", "pooling": "max", "upsample": "nearest"}
    if not batch:
        rest = {"norm": "instance_plain", "pooling": "mean", "upsample": "trilinear"}
    widths = {"width": shapes.width("model.0"), "features": convs[-1].shape[0]}
    # One convolution first and one last, and two at each level on both sides.
    return widths | rest | {"halvings": len(convs) // 4 - 1, "norm_eps": 1e-5 if batch else 1e-2}


def _rsunet(shapes: TensorShapes) -> dict[str, Any]:
    depth = shapes.count("down_blocks.{}.conv.pre.1")
    down = ["input_conv", *(f"down_blocks.{n}.conv" for n in range(depth))]
    kernels = [shapes.kernel(f"up_blocks.{n}.up") for n in reversed(range(depth))]
    first = "input_conv.pre.0"
    batch = f"{first}.norm.running_mean" in shapes
    group = f"{first}.norm.weight" in shapes
    shapes.assumed += ["orientation", *(["norm_groups"] if group and not batch else [])]
    return {
        "orientation": "RAS",
        "channels": [shapes.width(f"{level}.pre.1") for level in down],
        # Fixed weights of interpolation are 2f - f % 2 wide for a factor f.
        "strides": [
            [(n + 1) // 2 for n in ([k] * 3 if isinstance(k, int) else k)] for k in kernels
        ],
        "kernel_size": [shapes.kernel(f"{level}.pre.1") for level in down],
        "norm": "batch" if batch else "group" if group else "instance_plain",
        "act": shapes.activation(f"{first}.act", "relu"),
    }


def _primus(shapes: TensorShapes) -> dict[str, Any]:
    width = shapes.width("down_projection.proj")
    patches = shapes.tensors["eva.pos_embed"].shape[1]
    decoder = [f"up_projection.decode.{n}.0.weight" for n in range(2)]
    # As the library's for two classes, where weights are of the encoder alone.
    shares = [(width / 4) ** ((n + 1) / 3) for n in range(2)]
    usual = [max(8, 8 * round(width / share / 8)) for share in shares]
    shapes.assumed += ["orientation", "num_heads", "image_size"]
    return {
        "orientation": "RAS",
        "embed_dim": width,
        "depth": shapes.count("eva.blocks.{}.norm1"),
        "num_heads": next(n for n in (12, 16, 6, 4, 3, 2, 1) if width % (6 * n) == 0),
        "decoder_channels": [
            shapes.tensors[name].shape[1] if name in shapes else n
            for name, n in zip(decoder, usual, strict=True)
        ],
        "image_size": _PRIMUS_PATCH * round(patches ** (1 / 3)),
    }


PUBLISHED_READERS: Mapping[str, ShapeReader] = {
    "segresnet_ds": ShapeReader(
        ("encoder.conv_init",),
        tuple(f"up_layers.{n}.head" for n in range(7, -1, -1)),
        _segresnet_ds,
    ),
    "unetr": ShapeReader(("vit.patch_embedding.patch_embeddings",), ("out.conv.conv",), _unetr),
    "mednext": ShapeReader(("stem",), ("out_0.conv_out",), _mednext),
    "resnet_unet": ShapeReader(("encoder.conv1", "conv1"), ("head",), _resnet_unet),
    "stunet": ShapeReader(
        ("conv_blocks_context.0.0.conv1",), tuple(f"seg_outputs.{n}" for n in range(8)), _stunet
    ),
    "suprem_unet": ShapeReader(
        ("down_tr64.ops.0.conv1",),
        ("out_tr.final_conv",),
        lambda shapes: {"width": shapes.width("down_tr64.ops.0.conv1")},
    ),
    "anatomix": ShapeReader(("model.0",), ("head",), _anatomix),
    "rsunet": ShapeReader(("input_conv.pre.1",), ("output_head",), _rsunet),
    "primus": ShapeReader(("down_projection.proj",), ("up_projection.decode.2",), _primus),
}
"""`models.name` -> how it is read."""
