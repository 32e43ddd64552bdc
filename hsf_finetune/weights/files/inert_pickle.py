"""Reads a pickle as data: tensors and plain values are made, every other object is a stand-in."""

from __future__ import annotations

import gc
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from hsf_finetune.weights.files.stand_in import REPEATED, Global, StandIn

MOST_READS = 1_000_000
"""Largest number of reads for one pickle, one or two for each instruction. A checkpoint of a
thousand tensors with its optimiser's takes a quarter of it."""
_LARGEST_READ = 64 << 20
_LARGEST_KEY = 16
_LONGEST_NAME = 1000
_MOST_COPIED = 64 << 20
_BYTES_EACH: Mapping[type, int] = {str: 1, dict: 100, list: 100, tuple: 100, set: 100}
"""About what a copy takes, per letter or element."""
_TYPES = {f"torch.{k}": v for k, v in vars(torch).items() if isinstance(v, torch.dtype)}
_MOST_DIMENSIONS = 64
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules of Python 2, which pickles before protocol 3 name."""


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers of one or several tensors."""

    content: torch.UntypedStorage
    dtype: torch.dtype


class InertUnpickler(pickle._Unpickler):
    """Reads one pickle without importing or calling anything that it names.

    Python's own unpickler, written in Python, follows the instructions. Each one that
    would call, fill or change an object is replaced, so that nothing is called but the
    few functions of this file, with checked arguments.

    Args:
        stream: at the pickle's first byte; afterwards behind its last one.
        storage: the numbers that a persistent id of torch names: a storage's type, its key,
            its number of elements, and what else the id holds.
    """

    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    stack: list[Any]

    def __init__(self, stream: IO[bytes], storage: Callable[..., Any] | None = None) -> None:
        # As torch.load has it, for texts that Python 2 wrote.
        super().__init__(_Reader(stream), encoding="utf-8", errors="replace")
        self.storage = storage
        self.copied = 0

    def load(self) -> Any:
        """The pickle's content: plain data, tensors, and stand-ins."""
        collects = gc.isenabled()
        # Where very many objects are made, most of the time would go into looking at them.
        gc.disable()
        try:
            return super().load()
        finally:
            if collects:
                gc.enable()

    def find_class(self, module: str, name: str) -> Global:
        """The name of a function or class; nothing is imported."""
        if len(module) + len(name) > _LONGEST_NAME:
            raise pickle.UnpicklingError("a very long name")
        return Global(f"{_RENAMED.get(module, module)}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """The numbers of a tensor; any other reference is a stand-in."""
        match pid:
            case ("storage" | b"storage", Global(kind), str(key), _, int(count), *rest):
                if self.storage is not None and len(key) <= _LONGEST_NAME:
                    return self.storage(kind, key, count, *rest)
            case ("module" | b"module", Global() as kind, *_):
                return kind
        return StandIn("persistent id", (pid,))

    def get_extension(self, code: int) -> None:
        """Refuses numbers that stand for classes of the program that reads."""
        raise pickle.UnpicklingError(f"extension code {code}")

    def _instantiate(self, called: Any, arguments: list[Any]) -> None:
        self.append(self._make(called, arguments))

    def _make(self, called: Any, arguments: Any) -> Any:
        """What an instruction makes that calls something: plain data, or a stand-in."""
        name, given = _name_of(called), _sequence(arguments)
        build = _BUILDERS.get(name) if isinstance(called, Global) else None
        if build is None:
            return StandIn(name, given)
        # A few instructions may ask for many copies of something large.
        sized = [one for one in given if type(one) in _BYTES_EACH]
        self.copied += sum(_BYTES_EACH[type(one)] * len(one) for one in sized)
        if self.copied > _MOST_COPIED:
            raise pickle.UnpicklingError("a pickle that copies very much")
        if build is _of_type:
            return self._make(*_of_type(*given))
        return build(*given)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments)

    def _new_with_keywords(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = StandIn(_name_of(self.stack[-1]), (*_sequence(arguments), keywords))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        # Attributes of a dictionary, such as the versions of layers, are not needed.
        if isinstance(target, StandIn):
            target.state = state

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        into = target.items if isinstance(target, StandIn) else target
        if not isinstance(into, dict):
            raise pickle.UnpicklingError(f"items of a {type(target).__name__}")
        into.update(_pairs(items))

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        into = target.elements if isinstance(target, StandIn) else target
        if isinstance(into, set):
            into.update(map(_key, values))
        elif isinstance(into, list):
            into.extend(values)
        else:
            raise pickle.UnpicklingError(f"elements of a {type(target).__name__}")

    def _dictionary(self) -> None:
        items = self.pop_mark()
        self.append(_pairs(items))

    def _frozen_set(self) -> None:
        values = self.pop_mark()
        self.append(frozenset(map(_key, values)))

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("data outside the pickle")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _new_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: lambda self: self._set_items([self.stack.pop(-2), self.stack.pop()]),
        pickle.SETITEMS[0]: lambda self: self._set_items(self.pop_mark()),
        pickle.APPEND[0]: lambda self: self._extend([self.stack.pop()]),
        pickle.APPENDS[0]: lambda self: self._extend(self.pop_mark()),
        pickle.ADDITEMS[0]: lambda self: self._extend(self.pop_mark()),
        pickle.DICT[0]: _dictionary,
        pickle.FROZENSET[0]: _frozen_set,
        pickle.BYTEARRAY8[0]: lambda self: self.append(
            self.read(int.from_bytes(self.read(8), "little"))
        ),
        pickle.NEXT_BUFFER[0]: _refuse,
        pickle.READONLY_BUFFER[0]: _refuse,
        # A frame only says how much could be read at once.
        pickle.FRAME[0]: lambda self: self.read(8) and None,
    }


class _Reader:
    """The bytes of a pickle, with bounds on the number of reads and on their size."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.left = MOST_READS

    def read(self, size: int) -> bytes:
        self.left -= 1
        if self.left < 0 or size > _LARGEST_READ:
            raise pickle.UnpicklingError("a pickle of too many instructions, or of too large ones")
        found = self.stream.read(size)
        if len(found) < size:
            raise EOFError("the pickle ends early")
        return found

    def readline(self) -> bytes:
        return self.stream.readline(_LARGEST_READ)


# ------------------------------------------------------- what stands for calls in a pickle
def _name_of(called: Any) -> str:
    if not isinstance(called, (Global, StandIn)):
        raise pickle.UnpicklingError(f"a call of a {type(called).__name__}")
    return called.name


def _sequence(arguments: Any) -> Sequence[Any]:
    if not isinstance(arguments, (tuple, list)):
        raise pickle.UnpicklingError("a call without arguments")
    return arguments


def _pairs(items: Sequence[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(value: Any) -> Any:
    """A key of a dictionary, or a stand-in for one that would take long to compare."""
    parts = value if type(value) is tuple and len(value) <= _LARGEST_KEY else (value,)
    return value if all(map(_is_plain_key, parts)) else StandIn("key", (value,))


def _is_plain_key(value: Any) -> bool:
    if type(value) is int:
        return value.bit_length() <= 64
    return value is None or isinstance(value, (str, bytes, bool, float, Global, StandIn))


def _dictionary(*given: Any) -> dict[Any, Any]:
    """An OrderedDict or the like: empty, from a dictionary, or from pairs."""
    pairs = given[-1] if given else ()
    if isinstance(pairs, dict):
        return dict(pairs)
    listed = pairs if isinstance(pairs, (list, tuple)) else ()
    return _pairs([part for pair in listed if len(_sequence(pair)) == 2 for part in pair])


def _object(kind: Any, base: Any = None, state: Any = None) -> StandIn:
    """An object as pickles before protocol 2 describe it."""
    made = StandIn(_name_of(kind))
    made.items = dict(state) if isinstance(state, dict) else {}
    made.elements = state if isinstance(state, list) else []
    return made


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as pickles before protocol 3 write them."""
    if encoding not in ("latin1", "latin-1", "utf-8") or not isinstance(text, str):
        raise pickle.UnpicklingError("bytes in an unusual form")
    return text.encode(encoding)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: torch.dtype | None = None
) -> Tensor | StandIn:
    """A tensor inside its storage, without hooks, gradients or attributes.

    torch would enlarge a storage that is smaller than the tensor. One that repeats its
    numbers (strides of 0) could be larger than the memory, and gets a stand-in.
    """
    if len(_sequence(size)) != len(_sequence(stride)) or len(size) > _MOST_DIMENSIONS:
        raise pickle.UnpicklingError("a tensor with another number of strides than dimensions")
    whole = (*size, *stride, offset)
    if not isinstance(storage, Storage) or not all(
        type(n) is int and 0 <= n < 1 << 62 for n in whole
    ):
        raise pickle.UnpicklingError("a tensor in an unusual form")
    dtype = dtype or storage.dtype
    count, held = math.prod(size), storage.content.nbytes() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count == 0:
        return torch.empty(0, dtype=dtype).reshape(size)
    if last >= held:
        raise pickle.UnpicklingError("a tensor that its storage does not hold")
    if count > held:
        return StandIn(REPEATED)
    return torch.empty(0, dtype=dtype).set_(storage.content, offset, size, stride)


def _typed_tensor(*given: Any) -> Tensor | StandIn:
    """A tensor of a type of its own, which is the seventh argument."""
    name = _name_of(given[6])
    if name not in _TYPES:
        raise pickle.UnpicklingError(f"a tensor of {name}")
    return _tensor(*given[:4], dtype=_TYPES[name])


def _of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> tuple[Any, Any]:
    """What makes a tensor of another class, such as MONAI's with its affine; a plain one here."""
    return function, arguments


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _set(values: Any = ()) -> set[Any]:
    return set(map(_key, _sequence(values)))


_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encoded,
    "builtins.bytes": lambda *given: StandIn("builtins.bytes", given) if given else b"",
    "builtins.frozenset": lambda *values: frozenset(_set(*values)),
    "builtins.set": _set,
    "collections.Counter": _dictionary,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": lambda *factory: {},
    "copyreg._reconstructor": _object,
    "torch.Size": _first,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
}
"""What a pickle may call, and what is done instead."""
