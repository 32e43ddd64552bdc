"""Weights in ONNX files: those that `export` writes, and others whose tensors kept their names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import META_KEY
from hsf_finetune.weights.files.unreadable import FETCH_AGAIN

UNUSED_KEY = f"{META_KEY}_unused"
"""Key inside the metadata: tensors that only training uses, which are not part of the graph."""
_OF_A_NETWORK = re.compile(r"(\w+\.)+\w+")
"""Names that PyTorch gives; those of its exporter are such as `onnx::Conv_12`."""
_FLOATS = (1, 10, 11, 16)
"""ONNX's numbers of types: float, float16, double, bfloat16."""
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu", "Mul", "Add")
"""Operations that use weights; others use constants, such as sizes."""
_AGAIN = (
    "torch.onnx.export(..., dynamo=False, do_constant_folding=False, "
    "training=torch.onnx.TrainingMode.PRESERVE) keeps them"
)


def is_onnx(path: Path) -> bool:
    """Whether the name ends like an ONNX file."""
    return path.suffix.lower() == ".onnx"


def load_onnx(path: Path) -> dict[str, Any]:
    """The tensors of an ONNX file under their names, and the model card of one of `export`.

    Returns:
        As `torch.load` gives a checkpoint of this package.

    Raises:
        WeightsError: the package `onnx` is missing, the file is damaged or holds its weights in
            another file, or its tensors have no names of a network.
    """
    try:
        import onnx  # an extra
    except ImportError as error:
        raise WeightsError(
            "ONNX files are read by the package onnx, which is not installed",
            file=path,
            fix="pip install onnx",
        ) from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, whose classes differ by its version
        raise WeightsError(
            "the file is not a readable ONNX model",
            file=path,
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix=FETCH_AGAIN,
        ) from error
    stored = list(model.graph.initializer)
    if any(one.external_data for one in stored):
        raise WeightsError(
            "the ONNX file holds its weights in another file",
            file=path,
            fix=f"python -c \"import onnx; onnx.save(onnx.load('{path}'), 'one_file.onnx')\"",
        )
    floats = [one for one in stored if one.data_type in _FLOATS]
    tensors = {
        one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).astype(np.float32))
        for one in floats
        if _OF_A_NETWORK.fullmatch(one.name)
    }
    used = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input}
    renamed = [n.name for n in floats if n.name in used - tensors.keys() and len(n.dims)]
    if renamed or not tensors:
        raise WeightsError(
            "the tensors of this ONNX file do not have the names of a network's: its exporter has "
            "merged or renamed them",
            file=path,
            found=f"{len(renamed)} of {len(floats)}: {', '.join(renamed[:4])}"
            if renamed
            else "no tensors",
            fix="give the checkpoint it was exported from (for HSF's models, "
            f"finetuning.pretrained=hsf);\nor export it again: {_AGAIN}",
        )
    told = {one.key: one.value for one in model.metadata_props}
    if META_KEY not in told:
        return {"state_dict": tensors}
    unused = json.loads(told.get(UNUSED_KEY, "{}"))
    tensors |= {name: torch.tensor(numbers) for name, numbers in unused.items()}
    return {"state_dict": tensors, META_KEY: json.loads(told[META_KEY])}
