"""Reads the settings of each network from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsf_finetune.weights.sources.published_shapes import PUBLISHED_READERS
from hsf_finetune.weights.sources.tensor_shapes import ShapeReader, TensorShapes


def _monai_unet(shapes: TensorShapes) -> dict[str, Any]:
    units = shapes.count("0.conv.unit{}.conv")
    conv, norm = ("conv.unit0.conv", "conv.unit0.adn") if units else ("conv", "adn")
    # Levels are nested: 0., 1.submodule.0., 1.submodule.1.submodule.0., ...
    depth = 0
    while f"{'1.submodule.' * depth}0.{conv}.weight" in shapes:
        depth += 1
    levels = [f"{'1.submodule.' * level}0." for level in range(depth)]
    kernel = shapes.kernel(f"0.{conv}")
    # Of residual blocks, the shortcut has a kernel only where the block halves.
    shortcuts = [f"{level}residual" for level in levels]
    halved = [
        not units or (f"{one}.weight" in shapes and shapes.kernel(one) == kernel)
        for one in shortcuts
    ]
    shapes.assumed += ["strides"] if any(halved) else []
    return {
        "channels": [shapes.width(f"{n}{conv}") for n in [*levels, "1.submodule." * depth]],
        "strides": [2 if halves else 1 for halves in halved],
        "kernel_size": kernel,
        "up_kernel_size": shapes.kernel("2.0.conv" if units else "2.conv"),
        "num_res_units": units,
        "act": shapes.activation(f"0.{norm}.A", "relu"),
        "norm": shapes.norm(f"0.{norm}.N", "instance"),
    }


def _unet(shapes: TensorShapes) -> dict[str, Any]:
    trunk = TensorShapes(shapes.tensors, "trunk.model.")
    models = _monai_unet(trunk)
    shapes.assumed += [name for name in trunk.assumed if name != "act"]
    told = {name: models[name] for name in ("channels", "strides", "num_res_units", "norm")}
    return told | {"features": shapes.tensors["head.weight"].shape[1]}


def _basicunet(shapes: TensorShapes) -> dict[str, Any]:
    down = [f"down_{level}.convs" for level in range(1, 5)]
    return {
        "features": [shapes.width(f"{n}.conv_0.conv") for n in ("conv_0", *down, "upcat_1.convs")],
        "act": shapes.activation("conv_0.conv_0.adn.A", "leakyrelu"),
        # MONAI's default for this network.
        "negative_slope": 0.1,
        "norm": shapes.norm("conv_0.conv_0.adn.N", "instance"),
        "upsample": shapes.upsampling("upcat_"),
    }


def _dynunet(shapes: TensorShapes) -> dict[str, Any]:
    middle = shapes.count("downsamples.{}.conv1.conv")
    levels = ["input_block", *(f"downsamples.{n}" for n in range(middle)), "bottleneck"]
    convs = [f"{level}.conv1.conv" for level in levels]
    # Below full resolution, from fine to coarse; each has a second name.
    names = [
        (f"upsamples.{middle - n}.transp_conv.conv", f"{nested}upsample.transp_conv.conv")
        for n in range(middle + 1)
        for nested in ["skip_layers." + "next_layer." * n]
    ]
    ups = [first if f"{first}.weight" in shapes else second for first, second in names]
    heads = shapes.count("deep_supervision_heads.{}.conv.conv")
    return {
        "channels": [shapes.width(conv) for conv in convs],
        "strides": [1, *(shapes.kernel(up) for up in ups)],
        "kernel_size": [shapes.kernel(conv) for conv in convs],
        "norm": shapes.norm("input_block.norm1", "instance"),
        "residual": any(".conv3." in name for name in shapes.tensors),
        "trans_bias": f"{ups[0]}.bias" in shapes,
        "deep_supervision": heads > 0,
        "deep_supr_num": heads or 1,
    }


def _segresnet(shapes: TensorShapes) -> dict[str, Any]:
    # The first level alone has no convolution before its blocks, and starts at 1 all the same.
    levels = shapes.count("down_layers.{}.1.conv1.conv")
    down = [shapes.count(f"down_layers.{n}.{{}}.conv1.conv", first=1) for n in range(levels)]
    return {
        "init_filters": shapes.width("convInit.conv"),
        "blocks_down": down,
        "blocks_up": [shapes.count(f"up_layers.{n}.{{}}.conv1.conv") for n in range(levels - 1)],
        "norm": shapes.norm("conv_final.0", "group"),
        "upsample": shapes.upsampling("up_samples."),
    }


def _swinunetr(shapes: TensorShapes) -> dict[str, Any]:
    stages = [f"swinViT.layers{n}.0.blocks" for n in range(1, 5)]
    tables = [f"{stage}.0.attn.relative_position_bias_table" for stage in stages]
    shapes.assumed.append("downsample")
    return {
        "feature_size": shapes.width("swinViT.patch_embed.proj"),
        "depths": [shapes.count(f"{stage}.{{}}.norm1") for stage in stages],
        "num_heads": [shapes.tensors[table].shape[1] for table in tables],
        "window_size": _window(shapes, f"{stages[0]}.0.attn.relative_position_"),
        "norm": shapes.norm("encoder1.layer.norm1", "instance"),
        "use_v2": "swinViT.layers1c.0.layer.conv1.conv.weight" in shapes,
        "downsample": "merging",
    }


def _window(shapes: TensorShapes, begin: str) -> int | list[int]:
    """The window within which voxels attend to each other.

    From the table's row for the first voxel and each other one: it is smaller by 1, by
    2c - 1 and by (2c - 1)(2b - 1) per step along the axes of a window (a, b, c).
    """
    first, index = f"{begin}bias_table", f"{begin}index"
    if index not in shapes:
        return int(shapes.tensors[first].shape[0] ** (1 / 3) + 1.5) // 2
    row = shapes.tensors[index][0].long()
    steps: list[int] = (row[0] - row).tolist()
    c = _leading(steps, 1)
    b = _leading(steps[::c], 2 * c - 1)
    window = [len(steps) // (b * c), b, c]
    shapes.assumed += ["window_size"] if 1 in window else []
    return c if window == [c] * 3 else window


def _leading(numbers: list[int], step: int) -> int:
    """How many numbers, from the first on, are 0, step, 2 step, ..."""
    fit = (n == k * step for k, n in enumerate(numbers))
    return next((k for k, fits in enumerate(fit) if not fits), len(numbers))


def _nnunet(shapes: TensorShapes) -> dict[str, Any]:
    residual = "encoder.stem.convs.0.conv.weight" in shapes
    blocks, block = (".blocks.{}", ".conv1") if residual else (".0.convs.{}", "")
    stages = shapes.count(f"encoder.stages.{{}}{blocks.format(0)}{block}.conv")
    down = [f"encoder.stages.{stage}{blocks}{block}" for stage in range(stages)]
    ups = [f"decoder.transpconvs.{stage}" for stage in reversed(range(stages - 1))]
    norm = f"{down[0].format(0)}.norm"
    batch = f"{norm}.running_mean" in shapes
    shapes.assumed += ["orientation", "nonlin", *([] if batch else ["norm_op"])]
    models = {
        "architecture": "ResidualEncoderUNet" if residual else "PlainConvUNet",
        "orientation": "RAS",
        "features_per_stage": [shapes.width(f"{stage.format(0)}.conv") for stage in down],
        "kernel_sizes": [shapes.kernel(f"{stage.format(0)}.conv") for stage in down],
        "strides": [1, *(shapes.kernel(up) for up in ups)],
        "n_blocks_per_stage": [shapes.count(f"{stage}.conv") for stage in down],
        "n_conv_per_stage_decoder": [
            shapes.count(f"decoder.stages.{stage}.convs.{{}}.conv") for stage in range(stages - 1)
        ],
        "conv_bias": f"{down[0].format(0)}.conv.bias" in shapes,
        "norm_op": "BatchNorm3d" if batch else "InstanceNorm3d",
        "nonlin": "LeakyReLU",
        "norm_op_kwargs": {"eps": 1e-5, "affine": f"{norm}.weight" in shapes},
    }
    stem = {"stem_channels": shapes.width("encoder.stem.convs.0.conv")} if residual else {}
    return models | stem


def _arunet(shapes: TensorShapes) -> dict[str, Any]:
    layer = "encoders.{}.basic_module.conv1.conv"
    levels = range(shapes.count(layer))
    widths = [shapes.width(layer.format(level)) for level in levels]
    names = shapes.tensors
    if widths != [widths[0] * 2**n for n in levels] or not any(
        ".SwitchNorm3d." in n for n in names
    ):
        raise ValueError("HSF's network doubles its width at each level, and has SwitchNorm3d")
    gated = any(".attention." in name for name in names)
    return {"hparams": {"f_maps": widths[0], "num_levels": len(widths), "use_attention": gated}}


READERS: Mapping[str, ShapeReader] = {
    "unet": ShapeReader(("trunk.model.0.conv.unit0.conv", "trunk.model.0.conv"), ("head",), _unet),
    "monai_unet": ShapeReader(("0.conv.unit0.conv", "0.conv"), ("2.0.conv", "2.conv"), _monai_unet),
    "basicunet": ShapeReader(("conv_0.conv_0.conv",), ("final_conv",), _basicunet),
    "dynunet": ShapeReader(("input_block.conv1.conv",), ("output_block.conv.conv",), _dynunet),
    "segresnet": ShapeReader(("convInit.conv",), ("conv_final.2.conv",), _segresnet),
    "swinunetr": ShapeReader(("swinViT.patch_embed.proj",), ("out.conv.conv",), _swinunetr),
    "arunet": ShapeReader(("encoders.0.basic_module.conv1.conv",), ("final_conv",), _arunet),
    "nnunet": ShapeReader(
        ("encoder.stages.0.0.convs.0.conv", "encoder.stem.convs.0.conv"),
        ("decoder.seg_layers.0",),
        _nnunet,
    ),
    **PUBLISHED_READERS,
}
"""`models.name` -> how it is read."""
