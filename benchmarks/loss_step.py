"""What a step of the set loss costs beside MONAI's DiceCELoss, in time and memory."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor

from hsf_finetune.training.losses import LabelSetLoss

SHAPE = (2, 8, 64, 64, 64)
"""Batch, classes, X, Y, Z."""
TENSOR_MIB = 4 * SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3] * SHAPE[4] / 2**20


def loss_figures(
    device: torch.device, rounds: int, threads: int
) -> dict[str, tuple[list[float], float]]:
    """Milliseconds of a forward and backward pass, and the memory it takes on top.

    Memory is counted in tensors of the logits' size, and includes the gradient. On a CPU
    each loss is measured in a process of its own, where nothing was freed before.

    Returns:
        `MONAI`, `set loss` and `set loss, mixed protocols` -> (ms of each round, tensors).
    """
    steps = {name: step_of(name, device) for name in NAMES}
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            times[name].append(1000 * seconds(step, device))
    if device.type == "cuda":
        memory = {name: cuda_tensors(step) for name, step in steps.items()}
    else:
        memory = {name: in_own_process(name, threads) for name in NAMES}
    return {name: (times[name][1:], memory[name]) for name in NAMES}


NAMES = ("MONAI", "set loss", "set loss, mixed protocols")


def step_of(name: str, device: torch.device) -> Callable[[], None]:
    """A function that runs the loss forward and backward on random logits and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=generator).to(device).requires_grad_()
    rows = torch.randint(SHAPE[1], (SHAPE[0], *SHAPE[2:]), generator=generator)
    label = rows.to(torch.uint8).to(device)
    loss: Callable[[], Tensor]
    if name == "MONAI":
        target, plain = (
            label[:, None],
            DiceCELoss(include_background=False, to_onehot_y=True, softmax=True),
        )
        loss = lambda: plain(logits, target)  # noqa: E731
    else:
        allowed = torch.eye(SHAPE[1], dtype=torch.bool).repeat(SHAPE[0], 1, 1)
        if name != "set loss":
            allowed[0, 2, 3] = allowed[0, 3, 2] = allowed[1, 0, 5] = True
            allowed[1, 7] = True
        ours, sets = LabelSetLoss("dice_ce"), allowed.to(device)
        loss = lambda: ours(logits, label, sets)  # noqa: E731

    def step() -> None:
        logits.grad = None
        loss().backward()

    return step


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of a step: of the CPU's time, or until the GPU has finished."""
    if device.type != "cuda":
        started = time.process_time()
        step()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def cuda_tensors(step: Callable[[], None]) -> float:
    """Memory that a step takes on the GPU at most, in tensors of the logits' size."""
    step()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() / 2**20 - TENSOR_MIB  # the last step's gradient
    step()
    return (torch.cuda.max_memory_allocated() / 2**20 - before) / TENSOR_MIB


def in_own_process(name: str, threads: int) -> float:
    """`cpu_tensors` in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(cpu_tensors, name, threads).result()


def cpu_tensors(name: str, threads: int) -> float:
    """Memory that the first step of a process takes, in tensors of the logits' size."""
    torch.set_num_threads(threads)
    step = step_of(name, torch.device("cpu"))
    before = peak_mib()
    step()
    return (peak_mib() - before) / TENSOR_MIB


def peak_mib() -> float:
    """Most memory that this process has had (Linux; getrusage would count its parent's)."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
    return int(line.split()[1]) / 1024
