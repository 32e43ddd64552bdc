"""Seconds and memory of a device."""

from __future__ import annotations

import resource
import time

import torch


def now(device: torch.device) -> float:
    """Seconds, once the device has finished; processor time where it is the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def peak_memory_mib(device: torch.device) -> float:
    """Most memory in use so far, on the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
