"""What a pickle would load and allocate, found from its instructions without running any."""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import IO, Any

_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_MARK = object()
_UNKNOWN = object()


@dataclass(frozen=True)
class PickleGlobal:
    """A function or class that a pickle names.

    Args:
        name: module and name, such as `os.system`.
    """

    name: str


@dataclass
class PickleScan:
    """The globals and external objects that one pickle refers to.

    Args:
        globals: every function and class it names.
        persistent: the ids of data outside it; torch's are tuples of `storage`, the
            storage's type, its key, its device and its number of elements.
    """

    globals: set[str] = field(default_factory=set)
    persistent: list[Any] = field(default_factory=list)


def scan_pickle(stream: IO[bytes]) -> PickleScan:
    """Reads a pickle up to its end, and follows the constants on its stack.

    Constants, tuples of them and names of globals are kept; the results of instructions
    are not known, and a placeholder stands for each.

    Args:
        stream: at the pickle's first byte; afterwards behind its last one.

    Raises:
        ValueError: this is no pickle, or one that is cut off or malformed.
    """
    found = PickleScan()
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for op, arg, _ in pickletools.genops(stream):
            _follow(op, arg, stack, memo, found)
    except (IndexError, KeyError, OverflowError, UnicodeError) as error:
        raise ValueError(f"malformed pickle ({type(error).__name__})") from error
    return found


def _follow(
    op: pickletools.OpcodeInfo, arg: Any, stack: list[Any], memo: dict[int, Any], found: PickleScan
) -> None:
    name = op.name
    if name in _PUTS or name == "MEMOIZE":
        memo[len(memo) if arg is None else arg] = stack[-1]
        return
    if name == "DUP":
        stack.append(stack[-1])
        return
    popped = _pop(op, stack)
    if name == "MARK":
        stack.append(_MARK)
    elif name in _GETS:
        stack.append(memo[arg])
    elif name in ("GLOBAL", "INST"):
        stack.append(_add_global(arg.replace(" ", "."), found))
    elif name == "STACK_GLOBAL":
        stack.append(_add_global(".".join(map(str, popped)), found))
    elif name in ("BINPERSID", "PERSID"):
        found.persistent.append(popped[0] if popped else arg)
        stack.append(_UNKNOWN)
    elif name.startswith("TUPLE"):
        stack.append(tuple(popped))
    elif not op.stack_before and len(op.stack_after) == 1 and arg is not None:
        stack.append(arg)
    else:
        stack.extend(_UNKNOWN for _ in op.stack_after)


def _pop(op: pickletools.OpcodeInfo, stack: list[Any]) -> list[Any]:
    """Removes an instruction's arguments: so many values, or all down to the last mark."""
    before = op.stack_before
    if pickletools.markobject not in before:
        return [stack.pop() for _ in before][::-1]
    popped = []
    while (value := stack.pop()) is not _MARK:
        popped.append(value)
    for _ in range(before.index(pickletools.markobject)):
        popped.append(stack.pop())
    return popped[::-1]


def _add_global(name: str, found: PickleScan) -> PickleGlobal:
    found.globals.add(name)
    return PickleGlobal(name)
