"""Reads what nnssl (self-supervised pretraining, such as OpenMind's) says of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.nnunet_plans import read_plans
from hsf_finetune.weights.sources.published_shapes import PUBLISHED_READERS
from hsf_finetune.weights.sources.tensor_shapes import TensorShapes, first_name

_PLAN = "nnssl_adaptation_plan"
_WITHOUT_SKIPS = "NoSkipResEncL"
_RESENC_L: Mapping[str, Any] = {
    "n_stages": 6,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 6,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 5],
    "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
    "n_conv_per_stage_decoder": [1] * 5,
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""ResEnc-L as in Wald et al. 2024, "Revisiting MAE pre-training for 3D medical image
segmentation", arXiv:2410.23132; plans name it only."""
_PRIMUS_HEADS = {"S": 6, "B": 12, "M": 12, "L": 16}
"""Primus as in Wald et al. 2025, arXiv:2503.01835: what its tensors do not show."""
_PRESETS: Mapping[str, tuple[str, Mapping[str, Any] | None]] = {
    "ResEncL": ("ResidualEncoderUNet", _RESENC_L),
    _WITHOUT_SKIPS: ("ResidualEncoderUNet", _RESENC_L),
    "ResidualEncoderUNet": ("ResidualEncoderUNet", None),
    "PlainConvUNet": ("PlainConvUNet", None),
    **{f"Primus{size}": ("Primus", {"num_heads": n}) for size, n in _PRIMUS_HEADS.items()},
}
_LONGEST = 300


def is_nnssl_file(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is of nnssl: it holds a plan for its use in other networks."""
    return isinstance(checkpoint.described.get(_PLAN), Mapping)


def describe_nnssl_file(checkpoint: Checkpoint, orientation: str) -> Checkpoint:
    """The weights of a self-supervised network, with what their plan says.

    They have no classes; their decoder, if they have one, restores images.

    Raises:
        WeightsError: the plan cannot be read, or is of a network that is not supported.
    """
    plan, path = checkpoint.described[_PLAN], checkpoint.path
    try:
        network = plan["architecture_plans"]
        name, kwargs = str(network["arch_class_name"]), network.get("arch_kwargs")
        pretraining = plan["pretrain_plan"]
        [(configuration, chosen)] = list(pretraining["configurations"].items())[:1]
        channels = int(plan.get("pretrain_num_input_channels", 1))
        kind, preset = _PRESETS.get(name, ("", None))
        given = dict(preset or kwargs or {})
        if kind == "Primus":
            given = _primus(checkpoint, chosen["patch_size"]) | given
        architecture = {"network_class_name": kind, "arch_kwargs": given}
        described = {**chosen, "architecture": architecture}
        plans_form = {**pretraining, "configurations": {str(configuration): described}}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            "nnssl's plan cannot be read",
            file=path,
            found=f"{type(error).__name__}: {error}",
            expected=f"{_PLAN} with architecture_plans and pretrain_plan, as nnssl writes it",
        ) from error
    if not kind:
        raise WeightsError(
            "this network is none of this package's",
            file=path,
            found=f"{name} in nnssl's plan",
            expected=" or ".join(_PRESETS),
            fix="take the ResEncL weights of the same pretraining, where they are published",
        )
    plans = read_plans(plans_form, str(configuration), orientation, path, "nnssl")
    notes = ["self-supervised weights: they name no classes", *plans.notes]
    if name == _WITHOUT_SKIPS:
        notes.append("their decoder has no skip connections: take weights.load=encoder")
    if any(first_name(tensor).startswith("decoder.blocks.") for tensor in checkpoint.tensors):
        notes.append("they restored patches by a second transformer: take weights.load=encoder")
    citations = list(_citations(checkpoint.described.get("citations")))
    return replace(
        checkpoint,
        models=dict(plans.models),
        in_channels=channels,
        # Restoring images has no prediction to repeat, so that small ones stay small.
        preprocessing=plans.preprocessing.model_copy(update={"padded_size": "multiple"}),
        origin={
            **checkpoint.origin,
            "format": "nnssl",
            "name": name,
            "configuration": str(configuration),
            **plans.origin,
            **({"citation": "; ".join(citations)} if citations else {}),
            "notes": notes,
        },
    )


# -------------------------------------------------------------------- internals
def _primus(checkpoint: Checkpoint, patch: Sequence[int]) -> dict[str, Any]:
    """The settings of a Primus, from its tensors and the patch that its positions are of."""
    shapes = TensorShapes(checkpoint.tensors)
    told = PUBLISHED_READERS["primus"].read(shapes)
    # Images lie along the axes that the plan says.
    del told["orientation"]
    sides = [int(side) for side in patch]
    known = shapes.tensors["eva.pos_embed"].shape[1]
    return told | ({"image_size": sides} if prod(sides) == known * 8**3 else {})


def _citations(given: object) -> Iterator[str]:
    """The papers that a file asks to cite."""
    for entry in given if isinstance(given, (list, tuple)) else ():
        papers: Any = entry
        if isinstance(entry, Mapping):
            papers = entry.get("apa_citations") or entry.get("bibtex_citations") or ()
        for paper in [papers] if isinstance(papers, str) else list(papers):
            yield " ".join(str(paper).split())[:_LONGEST]
