"""What is kept of the objects in a pickle whose classes are not loaded."""

from __future__ import annotations

import math
import warnings
from collections import ChainMap, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GROUPS = ("_parameters", "_buffers", "_modules")
"""Where a module of PyTorch has its tensors and the modules in it."""
_MOST_FIELDS = 200_000
_MOST_DIMENSIONS = 64
_LONGEST_NAME = 1000
_CODES = {(code,) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")}
_SCRIPT = "__torch__."
"""What the names of TorchScript's classes begin with."""
REPEATED = "torch._utils._rebuild_repeated"
"""Name of the stand-in for a tensor with more numbers than its storage has."""


@dataclass(frozen=True)
class Global:
    """A function or class that a pickle names; only the name."""

    name: str


class StandIn:
    """What a pickle says of an object of any class that is not loaded. It runs nothing.

    Args:
        name: module and name of the class or function.
        arguments: what it would have been called with.
    """

    def __init__(self, name: str, arguments: Sequence[Any] = ()) -> None:
        self.name = name
        self.arguments = tuple(arguments)
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.elements: list[Any] = []

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"

    def fields(self) -> Mapping[Any, Any]:
        """The object's items, if it is a kind of dictionary, else its attributes."""
        if self.items:
            return MappingProxyType(self.items)
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        attributes = ChainMap(*[part for part in parts if isinstance(part, dict)][:2])
        # OmegaConf's dictionaries have their items in an attribute.
        content = attributes.get("_content")
        return MappingProxyType(content) if isinstance(content, dict) else attributes

    def array(self) -> Tensor | None:
        """The numbers of a numpy array, not to be changed; None if this is something else.

        Those of another byte order give a tensor without data.
        """
        if not self.name.endswith(".multiarray._reconstruct"):
            return None
        match self.state:
            case (_, tuple(shape), StandIn() as kind, bool(by_column), bytes(content)):
                code, order = kind.arguments[:1], (kind.state or ())[1:2]
                sizes = len(shape) <= _MOST_DIMENSIONS and all(
                    type(n) is int and 0 <= n <= len(content) for n in shape
                )
                if not sizes or code not in _CODES:
                    return None
                if order not in (("<",), ("|",)):
                    return torch.empty(0, device="meta")
                numbers = np.frombuffer(content, code[0])
                if math.prod(shape) == numbers.size:
                    with warnings.catch_warnings():
                        # It cannot be written to, and is not.
                        warnings.simplefilter("ignore")
                        shaped = numbers.reshape(shape, order="F" if by_column else "C")
                        return torch.from_numpy(shaped)
        return None

    def tensors(self) -> Iterator[tuple[str, Tensor | StandIn]]:
        """The tensors of a network that was saved whole, with their names in its state dict."""
        levels, seen = deque([("", self)]), set()
        left = _MOST_FIELDS
        while levels:
            start, module = levels.popleft()
            if id(module) in seen or len(start) > _LONGEST_NAME:
                continue
            seen.add(id(module))
            fields = module.fields()
            unsaved = fields.get("_non_persistent_buffers_set") or ()
            # In TorchScript, tensors and modules are attributes like all others.
            is_script = module.name.startswith(_SCRIPT)
            groups = [fields] if is_script else [fields.get(kind) for kind in _GROUPS]
            for name, value in (pair for group in groups for pair in _items(group)):
                left -= 1
                if left < 0:
                    return
                if name in unsaved:
                    continue
                if isinstance(value, Tensor) or is_tensor_stand_in(value):
                    yield f"{start}{name}", value
                elif isinstance(value, StandIn):
                    levels.append((f"{start}{name}.", value))


def _items(group: object) -> Iterable[tuple[Any, Any]]:
    return group.items() if isinstance(group, Mapping) else ()


def is_tensor_stand_in(value: object) -> bool:
    """Whether this would have been a tensor: a sparse, a quantised or a sharded one."""
    return isinstance(value, StandIn) and value.name.startswith(
        ("torch._utils._rebuild", "torch.distributed.", "torch._tensor.")
    )
