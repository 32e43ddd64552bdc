"""Inputs made to do harm, or to use up time and memory: every answer is short, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import json
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

from field.workbench import Answer, Attempt, Workbench, judge, kind, phantom, run_forked, save

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
    image, label = phantom(60)

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
        data = bench.folder()
        for number in range(4):
            with h5py.File(data / f"v{number}.h5", "w") as file:
                file["raw"], file["seg"] = image, label
                for key in ("raw", "seg"):
                    file[key].attrs["affine"] = np.eye(4)
        with h5py.File(data / "v0.h5", "w") as file:
            for key in ("raw", "seg"):
                file.create_dataset(key, shape=shape, dtype=dtype, chunks=(10,) * 3).attrs[
                    "affine"
                ] = np.eye(4)
        given = {"patterns": '{a: {mri: "v*.h5", mri_key: raw, label_key: seg}}'}
        yield tried(f"HDF5 of {name}", ["check", *bench.overrides(data, **given)], data, 2)
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


@kind("HDF5 that leads to other files")
def links(bench: Workbench) -> Iterator[Attempt]:
    image, label = phantom(61)
    for name in ("external link", "external storage", "virtual dataset", "soft link to nowhere"):
        data = bench.folder()
        secret = data / "secret.bin"
        secret.write_bytes(image.tobytes())
        with h5py.File(data / "other.h5", "w") as file:
            file["raw"] = image
        for number in range(4):
            with h5py.File(data / f"v{number}.h5", "w") as file:
                if number or name not in ("external link", "soft link to nowhere"):
                    if number == 0 and name == "external storage":
                        size = image.nbytes
                        file.create_dataset(
                            "raw", image.shape, "f4", external=[(str(secret), 0, size)]
                        )
                    elif number == 0:
                        layout = h5py.VirtualLayout(image.shape, "f4")
                        layout[:] = h5py.VirtualSource(str(data / "other.h5"), "raw", image.shape)
                        file.create_virtual_dataset("raw", layout)
                    else:
                        file["raw"] = image + number
                    file["raw"].attrs["affine"] = np.eye(4)
                elif name == "external link":
                    file["raw"] = h5py.ExternalLink(str(data / "other.h5"), "raw")
                else:
                    file["raw"] = h5py.SoftLink("/nowhere")
                file["seg"] = label
                file["seg"].attrs["affine"] = np.eye(4)
        given = {"patterns": '{a: {mri: "v*.h5", mri_key: raw, label_key: seg}}'}
        yield tried(name, ["check", *bench.overrides(data, **given)], data, 2)


@kind("YAML, JSON and tables that are hostile")
def texts(bench: Workbench) -> Iterator[Attempt]:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    deep = "datasets: " + "[" * 5000 + "]" * 5000 + "\n"
    for name, text in (
        ("alias bomb", bomb),
        (
            "alias bomb below datasets",
            "datasets:\n  mine:\n" + "".join(f"    {line}\n" for line in bomb.splitlines()),
        ),
        (
            "merge bomb",
            "b0: &b0 {x: 1}\n"
            + "".join(
                f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 10)}], k{n}: 1}}\n"
                for n in range(1, 9)
            ),
        ),
        ("5,000 brackets", deep),
        ("recursive alias", "datasets: &a\n  mine: *a\n"),
        ("python object", f"datasets: !!python/object/apply:os.system ['touch {MARK}']\n"),
        ("100,000 keys", "".join(f"k{n}: {n}\n" for n in range(100_000))),
        ("10 MB of one word", "main_path: " + "x" * 10_000_000 + "\n"),
        ("binary", "\x00\x01\x02"),
        ("duplicate keys", "main_path: a\nmain_path: b\n"),
        ("interpolation of itself", "main_path: ${datasets.main_path}\n"),
        ("a number of 10,000 digits", "batch_size: " + "9" * 10_000 + "\n"),
    ):
        data = bench.cohort(3)
        given = bench.overrides(data)
        (data / "conf" / "datasets" / "mine.yaml").write_bytes(text.encode())
        yield tried(name, ["check", *given], data, 2)
    for name, header, lines in (
        (
            "100,000 columns",
            ",".join(["image", "label", *(f"c{n}" for n in range(100_000))]),
            ["images/case0.nii.gz,labels/case0.nii.gz" + "," * 100_000],
        ),
        (
            "100,000 columns called image",
            ",".join(["image", "label", *(f"image{n}" for n in range(2, 100_000))]),
            ["images/case0.nii.gz,labels/case0.nii.gz" + "," * 99_998],
        ),
        ("100,000 lines", "image,label", ["images/case0.nii.gz,labels/case0.nii.gz"] * 100_000),
        ("one quoted field of 50 MB", "image,label", ['"' + "x" * 50_000_000]),
        ("paths outside", "image,label", ["../../../etc/passwd,/etc/shadow"] * 3),
        ("NUL bytes", "image,label", ["images/\0case0.nii.gz,x"]),
    ):
        data = bench.cohort(3)
        (data / "table.csv").write_text("\n".join([header, *lines]) + "\n")
        keys = {"table": "table.csv", "patterns": "{}"}
        yield tried(f"table of {name}", ["check", *bench.overrides(data, **keys)], data, 2)
    for name, text in (
        ("deep", "[" * 200_000),
        ("huge numbers", json.dumps({"labels": {"a": 10**400}})),
        ("100,000 labels", json.dumps({"labels": {f"c{n}": n for n in range(100_000)}})),
        ("not a mapping", "[1, 2]"),
        ("labels as text", json.dumps({"labels": "x" * 1_000_000})),
        ("NaN", '{"labels": {"a": NaN, "b": Infinity}}'),
    ):
        folder = bench.folder() / "d"
        for number in range(3):
            image, label = phantom(number)
            save(folder / "imagesTr" / f"c{number}_0000.nii.gz", image)
            save(folder / "labelsTr" / f"c{number}.nii.gz", label)
        (folder / "dataset.json").write_text(text)
        output = folder.parent / "conf" / "datasets" / "x.yaml"
        yield tried(f"dataset.json, {name}", ["init", folder, "-o", output], folder.parent)


@kind("names with control characters, paths and formulas")
def names(bench: Workbench) -> Iterator[Attempt]:
    escape = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
    for name in (
        escape,
        "a\nb",
        "a\rb",
        "\u202egnp",
        "../../outside",
        "=1+1",
        "x" * 200,
        "\udce9",
        "-rf",
        "a\u2028b",
        "\x9b31m",
    ):
        for place in ("file", "class", "dataset", "folder"):
            base = bench.folder()
            data = base / "x" / "y"
            shown = name.replace("/", "_") if place in ("file", "folder") else name
            below = data / shown if place == "folder" else data
            for number in range(3):
                image, label = phantom(number)
                stem = f"{shown}{number}" if place == "file" else f"case{number}"
                try:
                    save(below / "images" / f"{stem}.nii.gz", image)
                    save(below / "labels" / f"{stem}.nii.gz", label)
                except (OSError, UnicodeEncodeError):
                    break
            if place in ("file", "folder"):
                arguments: list[object] = [
                    "init",
                    data,
                    "-o",
                    data / "conf" / "datasets" / "mine.yaml",
                ]
            else:
                arguments = ["check", *bench.overrides(data)]
                quoted = json.dumps(name, ensure_ascii=True)
                file = data / "conf" / "datasets" / "mine.yaml"
                text = file.read_text()
                text = (
                    text.replace("1: anterior", f"1: {quoted}")
                    if place == "class"
                    else text.replace("  mine:", f"  {quoted}:")
                )
                file.write_text(text)
            attempt = tried(f"{place} {name[:20]!r}", arguments, data)
            outside = [p for p in (*base.glob("*"), *base.glob("x/*")) if p not in data.parents]
            outside = [p for p in outside if p != data]
            yield Attempt(attempt.name, "wrong", f"wrote {outside}") if outside else attempt


@kind("values of the environment in files that are shared")
def secrets(bench: Workbench) -> Iterator[Attempt]:
    for place in ("a path that exists", "name", "labels_names", "datasets.main_path", "note"):
        data = bench.cohort(4)
        given = bench.overrides(data, "lightning.max_epochs=1")
        file = data / "conf" / "datasets" / "mine.yaml"
        text = file.read_text()
        if place == "labels_names":
            text = text.replace("1: anterior", '1: "${oc.env:SECRET_TOKEN}"')
        elif place == "note":
            text += "    exclude: ['${oc.env:SECRET_TOKEN}']\n"
        file.write_text(text)
        if place == "a path that exists":
            given.append("datasets.cache_dir=${oc.env:FOLDER}")
        if place == "name":
            given.append("name=${oc.env:SECRET_TOKEN}")
        if place == "datasets.main_path":
            (data / "hush-hush").symlink_to(data, target_is_directory=True)
            given = [g for g in given if not g.startswith("datasets.main_path=")]
            given.append(f"datasets.main_path={data}/${{oc.env:SECRET_TOKEN}}")
        for command in ("check", "train"):
            answer, over = measured([command, *given], data)
            leaked = [
                p.name
                for p in (data / "outputs").rglob("*")
                if p.is_file() and b"hush-hush" in p.read_bytes()
            ]
            note = ", ".join(filter(None, [over, *leaked]))
            name = f"{place}, {command}"
            yield Attempt(name, "wrong", note) if note else judge(name, answer, answer.code == 0)
