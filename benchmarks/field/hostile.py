"""Files made to do harm, or to use up time and memory: every answer is short, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from field.workbench import (
    Answer,
    Array,
    Attempt,
    Workbench,
    judge,
    kind,
    phantom,
    run_forked,
    save_hdf5,
)

SECONDS, MEMORY_MB = 10, 1000
"""CPU time and memory of every answer, without the start of Python and PyTorch."""
MARK = "EXECUTED"
_CONTROLS = ("\x1b]", "\x1b[2J", "\x1b[31m", "\x07", "\x9b", "\u202e")


def measured(arguments: Sequence[object], cwd: Path) -> tuple[Answer, str]:
    """The answer of a command in a process of its own, and what was too much or too long."""
    done = run_forked(arguments, cwd)
    over = [f"{done.seconds:.0f} s"] if done.seconds > SECONDS else []
    over += [f"{done.memory_mb:.0f} MB"] if done.memory_mb > MEMORY_MB else []
    if (cwd / MARK).exists():
        over.append("executed")
    if any(control in done.answer.text for control in _CONTROLS):
        over.append("control characters in the terminal")
    return done.answer, ", ".join(over)


def tried(name: str, arguments: Sequence[object], cwd: Path, code: int | None = None) -> Attempt:
    """An attempt whose answer has this exit code (any clear one if None), soon and small."""
    answer, over = measured(arguments, cwd)
    if over:
        return Attempt(name, "wrong", f"{over}: {answer.text[-300:]}")
    right = answer.code == 0 if code is None else answer.code == code
    return judge(name, answer, right)


class _Call:
    """Pickles into a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


@kind("checkpoints that run code")
def pickles(bench: Workbench) -> Iterator[Attempt]:
    import collections

    import sympy  # type: ignore[import-untyped]

    command = f"touch {MARK}"
    source = f"__import__('os').system({command!r})"
    attacks = {
        "os.system": _Call(os.system, command),
        "sympy": _Call(sympy.Tuple, source),
        "sympify": _Call(sympy.sympify, source),
        "eval": _Call(eval, source),
        "exec": _Call(exec, source),
        "subprocess": _Call(subprocess.call, command.split()),
        "open": _Call(open, MARK, "w"),
        "numpy.load": _Call(np.load, "x.npy", None, True),
        "torch.load": _Call(torch.load, "x.pt"),
        "counter": _Call(collections.Counter, {"a": 1}),
    }
    for name, attack in attacks.items():
        for trust in (
            (),
            (f"finetuning.trust=[{attack._call[0].__module__}.{attack._call[0].__qualname__}]",),
        ):
            for legacy in (False, True):
                data = bench.cohort(3)
                file = data / "x.pt"
                state = {"state_dict": {"a.weight": torch.zeros(2, 2)}, "x": attack}
                torch.save(state, file, _use_new_zipfile_serialization=not legacy)
                given = bench.overrides(data, f"finetuning.pretrained={file}", *trust)
                title = f"{name}{', trusted' if trust else ''}{', old format' if legacy else ''}"
                yield tried(title, ["plan", *given], data, 2)
    data = bench.cohort(3)
    (data / "x.ckpt").write_bytes(pickle.dumps(_Call(os.system, command)))
    given = bench.overrides(data, f"finetuning.pretrained={data / 'x.ckpt'}")
    yield tried("a plain pickle", ["plan", *given], data, 2)


@kind("archives that unpack to too much")
def bombs(bench: Workbench) -> Iterator[Attempt]:
    def in_cohort(name: str, write: Callable[[Path], None], code: int = 2) -> Attempt:
        data = bench.cohort(4)
        write(data / "images" / "case0.nii.gz")
        return tried(name, ["check", *bench.overrides(data)], data, code)

    def gz_bomb(path: Path) -> None:
        whole = gzip.decompress(path.read_bytes())
        with gzip.open(path, "wb", 1) as file:
            file.write(whole)
            for _ in range(48):
                file.write(bytes(64 << 20))

    def huge_header(path: Path) -> None:
        whole = bytearray(gzip.decompress(path.read_bytes()))
        whole[40:56] = struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)
        path.write_bytes(gzip.compress(bytes(whole)))

    def offset(path: Path) -> None:
        whole = bytearray(gzip.decompress(path.read_bytes()))
        whole[108:112] = struct.pack("<f", 1e12)
        path.write_bytes(gzip.compress(bytes(whole)))

    def extension(path: Path) -> None:
        whole = bytearray(gzip.decompress(path.read_bytes()))
        whole[348:352] = b"\x01\0\0\0"
        whole[352:360] = struct.pack("<2i", 2**31 - 16, 6)
        path.write_bytes(gzip.compress(bytes(whole)))

    yield in_cohort("3 GB behind the last voxel", gz_bomb)
    yield in_cohort("a header that claims 2.7e13 voxels", huge_header)
    yield in_cohort("an offset of 1e12", offset)
    yield in_cohort("an extension of 2 GB", extension, 2)
    for name, shape, dtype in (
        ("1e12 voxels", (10000,) * 3, "f8"),
        ("1e9 in a small file", (1000,) * 3, "f4"),
    ):
        data = hdf5_cohort(bench)
        with h5py.File(data / "v0.h5", "w") as file:
            for key in ("raw", "seg"):
                node = file.create_dataset(key, shape=shape, dtype=dtype, chunks=(10,) * 3)
                node.attrs["spacing_mm"] = (1, 1, 1)
        yield tried(f"HDF5 of {name}", ["check", *bench.overrides(data, **HDF5)], data, 2)
    data = bench.cohort(3)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 30))
        archive.writestr("archive/version", "3\n")
    (data / "x.pt").write_bytes(bomb.getvalue())
    others = bench.overrides(data, f"finetuning.pretrained={data / 'x.pt'}")
    yield tried("a checkpoint of 1 GB in 1 MB", ["plan", *others], data, 2)
    (data / "y.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    others = bench.overrides(data, f"finetuning.pretrained={data / 'y.safetensors'}")
    yield tried("safetensors with a header of 1 TB", ["plan", *others], data, 2)


HDF5 = {"patterns": '{a: {mri: "v*.h5", mri_key: raw, label_key: seg}}'}


def hdf5_cohort(bench: Workbench) -> Path:
    """A new folder of phantoms as HDF5."""
    data = bench.folder()
    for number in range(4):
        image, label = phantom(61 + number)
        save_hdf5(data / f"v{number}.h5", {"raw": image, "seg": label})
    return data


def links_to(data: Path, image: Array) -> dict[str, Callable[[h5py.File], object]]:
    """How a dataset `raw` leads to voxels outside of its file."""
    layout = h5py.VirtualLayout(image.shape, "f4")
    layout[:] = h5py.VirtualSource(str(data / "other.h5"), "raw", image.shape)
    stored = [(str(data / "secret.bin"), 0, image.nbytes)]
    elsewhere = h5py.ExternalLink(str(data / "other.h5"), "raw")
    return {
        "external link": lambda file: file.__setitem__("raw", elsewhere),
        "external storage": lambda file: file.create_dataset(
            "raw", image.shape, "f4", external=stored
        ),
        "virtual dataset": lambda file: file.create_virtual_dataset("raw", layout),
        "soft link to nowhere": lambda file: file.__setitem__("raw", h5py.SoftLink("/nowhere")),
    }


@kind("HDF5 that leads to other files")
def links(bench: Workbench) -> Iterator[Attempt]:
    image, _ = phantom(61)
    for name in links_to(bench.root, image):
        data = hdf5_cohort(bench)
        (data / "secret.bin").write_bytes(image.tobytes())
        save_hdf5(data / "other.h5", {"raw": image})
        with h5py.File(data / "v0.h5", "a") as file:
            del file["raw"]
            links_to(data, image)[name](file)
        yield tried(name, ["check", *bench.overrides(data, **HDF5)], data, 2)
