"""Equality up to rounding: tolerances that follow from the arithmetic, not from one machine.

Processors, numbers of threads and versions of a library add numbers up in different orders.
Every operation rounds its result by at most half an epsilon of its type, so that a value is
known to about n epsilons of the largest number that enters it, n being the number of roundings
that follow on one another (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd
ed., SIAM 2002, section 3.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_FEW = 300
"""Roundings of a formula, of a sum of some hundred terms, or of a few layers."""
NETWORK = 10_000
"""Roundings of a whole network: some 30 layers, each of which adds up some hundred terms, and
normalisations of few voxels, which divide by small differences."""


def assert_equal_up_to_rounding(
    actual: Any,
    expected: Any,
    operations: int = _FEW,
    precision: torch.dtype | type[np.floating[Any]] | None = None,
    scale: float = 0.0,
) -> None:
    """Fails if two results of the same arithmetic differ by more than rounding explains.

    The tolerance is operations x epsilon x the largest absolute value.

    Args:
        actual: a tensor, an array or a number.
        expected: the same.
        operations: how many roundings may add up.
        precision: type of the coarsest step, where that is not the type of `expected`.
        scale: the largest number that enters, where it is larger than all of `expected`.
    """
    a, b = (
        value.detach().cpu() if torch.is_tensor(value) else torch.as_tensor(np.asarray(value))
        for value in (actual, expected)
    )
    precision = precision or (b.dtype if b.is_floating_point() else torch.float64)
    info = torch.finfo if isinstance(precision, torch.dtype) else np.finfo
    b = b.double()
    largest = max(scale, float(b[b.isfinite()].abs().max()) if b.isfinite().any() else 0.0)
    tolerance = operations * float(info(precision).eps) * largest
    torch.testing.assert_close(a.double(), b, atol=tolerance, rtol=0, equal_nan=True)
