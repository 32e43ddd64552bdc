"""Which classes of a checkpoint may be loaded: those the user names, if they are harmless."""

from __future__ import annotations

import importlib
import io
import pickle
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import serialization

from hsf_finetune.system.errors import WeightsError

PLAIN = "tensors, numbers, texts, lists and dictionaries only"
SAVE_ALONE = "torch.save(model.state_dict(), 'weights.pt')"

_BUILTINS = frozenset({
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list",
    "object", "range", "set", "slice", "str", "tuple",
})  # fmt: skip
_HARMLESS_MODULES = frozenset(
    {"argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "uuid"}
)
"""Modules of Python's own library whose classes only hold values."""
_REBUILDERS = frozenset(
    {
        "_codecs.encode",
        "copyreg._reconstructor",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "types.SimpleNamespace",
        "typing.Any",
    }
)
"""Functions that only build values. No other function is trusted: one that a file may call
with arguments of its own can delete files or start programs."""
_HARMFUL_MODULES = frozenset({
    "IPython", "__builtin__", "cloudpickle", "dill", "distutils", "fsspec", "h5py", "hydra",
    "joblib", "nt", "numpy.ctypeslib", "numpy.distutils", "numpy.f2py", "numpy.memmap",
    "numpy.testing", "pip", "pkg_resources", "requests", "setuptools", "torch.distributed",
    "torch.hub", "torch.jit", "torch.multiprocessing", "torch.package",
    "torch.storage._load_from_bytes", "torch.utils.cpp_extension",
})  # fmt: skip
"""Beside Python's own library: what runs, fetches or writes something when a class is made."""


def may_be_trusted(name: str) -> bool:
    """Whether a global may be loaded at all, if the user names it.

    Args:
        name: module and name, such as `numpy.dtype`.
    """
    module, _, attribute = name.rpartition(".")
    root = name.partition(".")[0]
    if name in _REBUILDERS:
        return True
    if module == "builtins":
        return attribute in _BUILTINS
    if any(f"{name}.".startswith(f"{harmful}.") for harmful in _HARMFUL_MODULES):
        return False
    return bool(module) and (root in _HARMLESS_MODULES or root not in sys.stdlib_module_names)


def unsafe_globals(pickled: bytes) -> list[str]:
    """The globals of a pickle that torch refuses to load by default, sorted.

    torch inspects archives as `torch.save` writes them now; pickles of its older format
    are put into one.

    Raises:
        ValueError: torch cannot read such a pickle.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/data.pkl", pickled)
        file.writestr("a/version", "3\n")
    archive.seek(0)
    with allow_globals(()):
        try:
            return sorted(serialization.get_unsafe_globals_in_checkpoint(archive))
        except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError) as error:
            raise ValueError(str(error)) from error


@contextmanager
def allow_globals(trusted: Sequence[Any]) -> Iterator[None]:
    """Lets torch load these globals beside its own, and no others, inside the `with` block.

    Libraries add classes of their own when they are imported; what a file may load should
    not depend on that.
    """
    others = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    try:
        with serialization.safe_globals(list(trusted)):
            yield
    finally:
        serialization.add_safe_globals(others)


def trusted_globals(path: Path, needed: Sequence[str], trust: Sequence[str]) -> list[Any]:
    """The functions and classes that a file needs, if the user trusts every one.

    Args:
        path: the file.
        needed: the globals it names beyond those that torch loads by default.
        trust: `finetuning.trust`.

    Returns:
        The argument for `allow_globals`.

    Raises:
        WeightsError: one could do harm, is not named by the user, or is not installed.
    """
    refuse_harmful(path, needed)
    functions = [name for name in needed if _is_function(name)]
    if functions:
        raise _harmful_error(path, functions)
    missing = [name for name in needed if name not in trust]
    if missing:
        raise untrusted_error(path, missing, trust)
    loaded = [(_resolve(path, name), name) for name in needed]
    if any(value is np.dtype for value, _ in loaded):
        # An instance of dtype has a class of its own, which no pickle names.
        kinds = {type(np.dtype(code)) for code in np.typecodes["All"]}
        loaded += [(kind, f"{kind.__module__}.{kind.__qualname__}") for kind in kinds]
    return loaded


def refuse_harmful(path: Path, names: Iterable[str]) -> None:
    """Raises the error for a file that names what is never loaded; imports nothing itself.

    Args:
        path: the file.
        names: the globals in it.

    Raises:
        WeightsError: one of them could do harm.
    """
    harmful = sorted(name for name in names if not may_be_trusted(name))
    if harmful:
        raise _harmful_error(path, harmful)


def untrusted_error(path: Path, missing: Sequence[str], trust: Sequence[str]) -> WeightsError:
    """The error for a file that needs more than the user trusts, and the line to paste."""
    line = ",".join(dict.fromkeys([*trust, *missing]))
    return WeightsError(
        "the file needs code to be read, and code from a checkpoint never runs without permission",
        file=path,
        found="a pickle that uses " + ", ".join(missing),
        expected=PLAIN,
        fix=f"where you trust its author: 'finetuning.trust=[{line}]'\n"
        f"or save its weights alone, where it was trained: {SAVE_ALONE}",
    )


def _resolve(path: Path, name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        # Importing a module may fail in any way.
        raise WeightsError(
            f"the file needs {name}, which cannot be imported",
            file=path,
            found=f"{type(error).__name__}: {error}",
            fix=f"install the package of {name.partition('.')[0]}, or save the weights alone, "
            f"where they were trained: {SAVE_ALONE}",
        ) from error
    if name in _REBUILDERS:
        return value
    real = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    if not isinstance(value, type) or not may_be_trusted(real):
        raise _harmful_error(path, [name])
    return value


def _is_function(name: str) -> bool:
    """Whether a global is a function, as far as that is known without an import."""
    module, _, attribute = name.rpartition(".")
    value = getattr(sys.modules.get(module), attribute, None)
    return value is not None and not isinstance(value, type) and name not in _REBUILDERS


def _harmful_error(path: Path, names: Sequence[str]) -> WeightsError:
    return WeightsError(
        "the file uses code that can do harm, and such code is never run",
        file=path,
        found="a pickle that uses " + ", ".join(names),
        expected=PLAIN,
        fix="finetuning.trust does not change this; get the file from its publisher, or have "
        f"its weights saved alone, where it was trained: {SAVE_ALONE}",
    )
