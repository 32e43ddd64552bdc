"""What PyTorch, NumPy and Python keep for the whole process, and a caller from Python may have set."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_caller_state() -> Iterator[None]:
    """Leaves random generators, PyTorch's threads and its default type as they were before.

    Meanwhile the default type is single precision, in which networks compute.
    """
    # Imported late, so that `import hsf_finetune` is quick.
    import numpy as np
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        torch.set_rng_state(generators[2])
        if on_cuda:
            torch.cuda.set_rng_state_all(on_cuda)
