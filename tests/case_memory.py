"""What memory grows by with each case, at its peak."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

FEW, MANY = 100, 400


def peak_bytes_per_case(work: Callable[[int], object]) -> float:
    """Growth of the peak from few cases to many; `work` is given their number.

    The least of several counts, since the first one pays for what is kept from then on.
    """
    many, few = (min(_peak_bytes(work, cases) for _ in range(3)) for cases in (MANY, FEW))
    return (many - few) / (MANY - FEW)


def _peak_bytes(work: Callable[[int], object], cases: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        work(cases)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
