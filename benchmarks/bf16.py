"""Fine-tuning in bfloat16 beside 32 bits: time of a step, and Dice.

    python benchmarks/bf16.py --source RUN --n 5 --seeds 0,1,2 --json bf16.json

takes the options of benchmarks/few_labels.py, whose arm `fine-tuned` it makes in both precisions:
`difference` is that of the mean Dice to 32 bits, with its 95 % interval over subjects. Where the processor
has no arithmetic for bfloat16, in which Lightning's bf16-mixed takes ten times as long, `bf16` trains in
32 bits with the numbers of bfloat16: convolutions, norms and activations round what they take and
give to 8 bits, forwards and backwards. Its cpu_s is not that of bfloat16 then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import few_labels
import torch
from torch import Tensor
from torch.nn import functional

from hsf_finetune.config.settings import UNetSettings
from hsf_finetune.inference.engines import computes_bf16
from hsf_finetune.networks.build import build
from hsf_finetune.training import train
from hsf_finetune.training.trainer import run_trainer

ARM = "bf16"
_ROUNDED = ("conv3d", "conv_transpose3d", "instance_norm", "prelu")


def main() -> None:
    own = computes_bf16(torch.device("cpu"))
    full, rounded = step_s(torch.float32), step_s(torch.bfloat16)
    print(
        f"a step: {full:.2f} CPU s in 32 bits, {rounded:.2f} in bfloat16 ({full / rounded:.2f} x)"
    )
    print(f"rounding changes logits {changed():.2f} times as much as autocast does")
    plain = few_labels.Benchmark.train

    def trained(self: few_labels.Benchmark, arm: str, n: int, seed: int) -> few_labels.Trained:
        if arm == "fine-tuned":  # which the processor would decide about
            return self.run(arm, n, seed, "lightning.precision=32-true")
        if arm != ARM:
            return plain(self, arm, n, seed)
        if own:
            return self.run(ARM, n, seed, "lightning.precision=bf16-mixed")
        with patch.object(train, "run_trainer", _run_with_rounding):
            return self.run(ARM, n, seed)

    with (
        patch.object(few_labels.Benchmark, "train", trained),
        patch.object(few_labels, "ARMS", ("fine-tuned", ARM)),
    ):
        few_labels.main()


def _run_with_rounding(*given: Any) -> None:
    with rounding():
        run_trainer(*given)


@contextmanager
def rounding() -> Iterator[None]:
    """Layers take and give numbers of bfloat16."""
    with ExitStack() as stack:
        for name in _ROUNDED:
            stack.enter_context(patch.object(functional, name, _rounded(name)))
        yield


def _rounded(name: str) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = getattr(functional, name)

    def call(*given: Any, **more: Any) -> Tensor:
        few = [_round(one) if isinstance(one, Tensor) else one for one in given]
        return _round(function(*few, **more))

    return call


def _round(values: Tensor) -> Tensor:
    return values.bfloat16().to(values.dtype)


def step_s(precision: torch.dtype) -> float:
    """Processor seconds of a step of the default network, on two volumes of 40 x 56 x 40 voxels."""
    torch.set_num_threads(1)
    network = build(UNetSettings(), 1, 3).network
    image = torch.randn(2, 1, 40, 56, 40)
    begin = 0.0
    for _ in range(2):
        begin = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = network(image)
        logits.float().pow(2).mean().backward()
    return time.process_time() - begin


def changed() -> float:
    """How much rounding changes the logits of a network, in what autocast changes them."""
    torch.manual_seed(0)
    network, image = build(UNetSettings(), 1, 3).network.eval(), torch.randn(1, 1, 40, 56, 40)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            theirs = network(image).float()
        with rounding():
            ours = network(image)
    return float((ours - exact).std() / (theirs - exact).std())


if __name__ == "__main__":
    main()
