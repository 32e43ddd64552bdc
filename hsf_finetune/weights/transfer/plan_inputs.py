"""The tensors that read the input channels: how the channels of a checkpoint are put into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.transfer.input_rules import (
    InputRequest,
    InputRule,
    dropped_inputs,
    make_input_rules,
)
from hsf_finetune.weights.transfer.receipt import TensorStatus
from hsf_finetune.weights.transfer.tensor_pairs import Axes, TensorPairs


@dataclass(frozen=True)
class InputPlan:
    """What becomes of the input channels.

    Args:
        rules: one per input channel; empty where the checkpoint has nothing that reads them.
        statuses: name of a tensor that reads them -> what becomes of it.
        axes: name of such a tensor -> its axes that count input channels.
        dropped: input channels of the checkpoint that nothing comes from.
    """

    rules: tuple[InputRule, ...] = ()
    statuses: dict[str, TensorStatus] = field(default_factory=dict)
    axes: Axes = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def plan_inputs(
    pairs: TensorPairs, request: InputRequest, recorded: Sequence[str] | None
) -> InputPlan:
    """The rules of the input channels, and what becomes of the tensors that read them.

    Raises:
        ConfigError: see `input_rules.make_input_rules`; or the given names of the
            checkpoint's channels contradict its own.
    """
    axes = request.axes
    source = pairs.source_extent(axes)
    fitting = [name for name in axes if not pairs.mismatch(name, axes[name], source)]
    if source is None or not fitting:
        return InputPlan()
    target = pairs.target[fitting[0]].shape[axes[fitting[0]][0]]
    given = request.source_names
    if recorded and given is not None and list(recorded) != list(given):
        raise ConfigError(
            "finetuning.source_channels contradicts the checkpoint, which names its channels itself",
            found="[" + ", ".join(given) + "]",
            expected="[" + ", ".join(recorded) + "]",
            fix="leave it out; finetuning.input_channels says which channel comes from which",
        )
    request = replace(request, source_names=recorded or given)
    rules = make_input_rules(request, source, target)
    kept = source == target and all(rule.keeps_weights(n) for n, rule in enumerate(rules))
    status: TensorStatus = ("loaded", "") if kept else ("remapped", "input channels")
    names = request.source_names or [str(n) for n in range(source)]
    dropped = tuple(names[n] for n in dropped_inputs(rules))
    return InputPlan(rules, dict.fromkeys(fitting, status), axes, dropped)
