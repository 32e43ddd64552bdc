"""Equality up to rounding: tolerances that follow from the arithmetic, not from one machine.

Processors, numbers of threads and versions of a library add numbers up in different orders.
Each addition or multiplication is rounded by at most half an epsilon of its type, relative
to its result; after n of them a value is known to about n epsilons of the largest term
(N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, section 3.1).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

FEW = 300
"""Operations in a row of a short formula, of a few layers or of a mean: the default."""
NETWORK = 100_000
"""Operations in a row of a small network: some 20 layers that each add up some hundred terms,
and normalisations that divide by standard deviations of a few percent of the values."""


def rounding_tolerance(expected: Any, operations: int = FEW, precision: Any = None) -> float:
    """How much a value may differ from the expected ones if both are right.

    Args:
        expected: a tensor, an array or a number.
        operations: how many operations in a row may each add an error of one epsilon.
        precision: dtype of torch or numpy in which the coarsest step rounds; by default that
            of `expected`.
    """
    values = torch.as_tensor(expected)
    values = values if values.is_floating_point() else values.double()
    known = values[values.isfinite()].abs()
    scale = float(known.max()) if known.numel() else 0.0
    return operations * _epsilon(precision or values.dtype) * scale


def assert_equal_up_to_rounding(
    actual: Any, expected: Any, operations: int = FEW, precision: Any = None, scale: float = 0.0
) -> None:
    """Fails if two results of the same arithmetic differ by more than rounding explains.

    Args:
        actual: a tensor, an array or a number.
        expected: of the same shape.
        operations: see `rounding_tolerance`.
        precision: see `rounding_tolerance`.
        scale: the largest value that enters a sum or a difference, where it is larger than
            the results.
    """
    a, b = (torch.as_tensor(np.asarray(v) if not torch.is_tensor(v) else v) for v in (actual, expected))
    precision = precision or (b.dtype if b.is_floating_point() else torch.float64)
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    tolerance = max(
        rounding_tolerance(b, operations, precision), operations * _epsilon(precision) * scale
    )
    if log := os.environ.get("CLOSENESS_LOG"):
        error = float((a - b).nan_to_num().abs().max()) if a.numel() else 0.0
        unit = tolerance / operations
        with open(log, "a") as file:
            file.write(f"{os.environ['PYTEST_CURRENT_TEST']}\t{operations}\t{error / unit if unit else error:.3g}\n")
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0, equal_nan=True)


def _epsilon(precision: Any) -> float:
    if isinstance(precision, torch.dtype):
        return torch.finfo(precision).eps
    return float(np.finfo(precision).eps)
