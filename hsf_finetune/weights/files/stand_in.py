"""What is kept of the objects in a pickle whose classes are not loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPEATED = "torch._utils._rebuild_repeated"
"""Name of the stand-in for a tensor with more numbers than its storage has."""


@dataclass(frozen=True)
class Global:
    """A function or class that a pickle names; only the name.

    Args:
        name: module and name, such as `collections.OrderedDict`.
    """

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
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        attributes = {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
        # OmegaConf's dictionaries and lists have their items in an attribute.
        content = attributes.get("_content")
        inner = content if isinstance(content, dict) else attributes
        return MappingProxyType(self.items or inner)

    def array(self) -> Tensor | None:
        """The numbers of a numpy array; None if this is something else."""
        state = self.state
        if not self.name.endswith(".multiarray._reconstruct") or not isinstance(state, tuple):
            return None
        match state:
            case (_, tuple(shape), StandIn() as kind, bool(by_column), bytes(content)):
                code = "".join(map(str, (kind.state or ())[1:2])) + str(kind.arguments[:1][0])
                if not re.fullmatch(r"[<>=|]?([fiu][1248]|b1)", code):
                    return None
                numbers = np.frombuffer(content, code)
                sizes = all(type(n) is int and n >= 0 for n in shape)
                if sizes and math.prod(shape) == numbers.size:
                    plain = numbers.astype(numbers.dtype.newbyteorder("="))
                    return torch.from_numpy(plain.reshape(shape, order="F" if by_column else "C"))
        return None

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor | StandIn]]:
        """The tensors of a network that was saved whole, with their names in its state dict."""
        levels: list[tuple[str, StandIn]] = [(prefix, self)]
        seen: set[int] = set()
        while levels:
            start, module = levels.pop(0)
            if id(module) in seen:
                continue
            seen.add(id(module))
            fields = module.fields()
            unsaved = fields.get("_non_persistent_buffers_set") or ()
            for kind in ("_parameters", "_buffers"):
                for name, value in _mapping(fields.get(kind)).items():
                    if isinstance(value, (Tensor, StandIn)) and name not in unsaved:
                        yield f"{start}{name}", value
            for name, inner in _mapping(fields.get("_modules")).items():
                if isinstance(inner, StandIn):
                    levels.append((f"{start}{name}.", inner))


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def is_tensor_stand_in(value: object) -> bool:
    """Whether this would have been a tensor: a sparse, a quantised or a sharded one."""
    return isinstance(value, StandIn) and value.name.startswith(
        ("torch._utils._rebuild", "torch.distributed.", "torch._tensor.")
    )
