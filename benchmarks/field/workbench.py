"""What the kinds of faults share: small cohorts, a model trained on them, commands and their answers."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Literal

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import psutil

from hsf_finetune.cli.main import main

Array = npt.NDArray[Any]
Outcome = Literal["right", "refused", "wrong"]

_ANSWER = ".answer.json"
_LONGEST_S = 240
SHAPE = (24, 32, 24)
CLASSES = {1: "anterior", 2: "posterior"}
FAST = (
    "models=unet",
    "models.channels=[4,8]",
    "models.strides=[2]",
    "models.features=4",
    "models.num_res_units=1",
    "logger=csv",
    "report=off",
    "augmentation=none",
    "datasets.few_subjects=0",
    "lightning.forecast=false",
    "lightning.threads=1",
    "lightning.accelerator=cpu",
)


@dataclass(frozen=True)
class Attempt:
    """One input that was tried.

    Args:
        name: of the input.
        outcome: `right`: the result is right, or a warning says what is unusual; `refused`: a
            clear message says why not; `wrong`: a wrong result without a word, or a traceback.
        note: what was seen.
    """

    name: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What a command answered; `code` is None after a traceback."""

    code: int | None
    text: str

    def says(self, *words: str) -> bool:
        """Whether all of these words stand in the answer, in any case."""
        text = " ".join(self.text.split()).lower()
        return all(" ".join(word.split()).lower() in text for word in words)

    @property
    def is_clear(self) -> bool:
        """Whether it is a message for the user, with a code that is not 0."""
        return self.code in (1, 2) and "Traceback" not in self.text


def judge(name: str, answer: Answer, right: bool) -> Attempt:
    """The attempt that an answer is; `right` says whether it is as it should be."""
    lines = answer.text.strip().splitlines()
    note = f"exit code {answer.code}: {(lines or [''])[0 if answer.code else -1][:200]}"
    if answer.code is None or "Traceback" in answer.text:
        return Attempt(name, "wrong", note)
    return Attempt(name, "right" if right else "refused" if answer.is_clear else "wrong", note)


def run_command(*arguments: object) -> Answer:
    """Runs `hsf-finetune` in this process."""
    out = io.StringIO()
    before = list(sys.argv)
    code: int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            sys.argv = ["hsf-finetune"]
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            out.write(traceback.format_exc())
            code = None
        finally:
            sys.argv = before
    return Answer(code, out.getvalue())


@dataclass(frozen=True)
class Measured:
    """A command in a process of its own: its answer, its CPU time, and its memory."""

    answer: Answer
    seconds: float = 0.0
    memory_mb: float = 0.0


def run_forked(
    arguments: Sequence[object], cwd: Path, before: Callable[[], None] | None = None
) -> Measured:
    """Runs a command in a fork of a process that has imported PyTorch, which takes no time.

    Args:
        arguments: of `hsf-finetune`.
        cwd: where it runs.
        before: called in the new process first; it can be pickled.
    """
    given = ([*map(str, arguments)], cwd, dict(os.environ), before)
    process = _fork_server().Process(target=_answer_and_exit, args=given)
    process.start()
    process.join(_LONGEST_S)
    if process.is_alive():
        process.kill()
        process.join()
        return Measured(Answer(None, f"no answer within {_LONGEST_S} s"), seconds=_LONGEST_S)
    if process.exitcode != 0:
        return Measured(Answer(None, f"ended with {process.exitcode}"))
    code, text, seconds, memory_mb = json.loads((cwd / _ANSWER).read_text(encoding="utf-8"))
    (cwd / _ANSWER).unlink()
    return Measured(Answer(code, text), seconds, memory_mb)


def _answer_and_exit(
    arguments: list[str], cwd: Path, environment: dict[str, str], before: Callable[[], None] | None
) -> None:
    os.chdir(cwd)
    os.environ |= {**environment, "SECRET_TOKEN": "hush-hush", "FOLDER": str(cwd)}
    memory = psutil.Process().memory_info().rss
    started = time.process_time()
    if before:
        before()
    answer = run_command(*arguments)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = (answer.code, answer.text, time.process_time() - started, (most - memory) / 1e6)
    (cwd / _ANSWER).write_text(json.dumps(found), encoding="utf-8")


@cache
def _fork_server() -> ForkServerContext:
    """Forks a process that has computed nothing.

    This one may have: a fork has none of the threads of OpenVINO and ONNX Runtime, and ends with
    "terminate called" as soon as Python collects one of their models.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["field.late_imports"])
    with _python_path():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _python_path() -> Iterator[None]:
    """Gives `sys.path` to a new process before its first import."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}


def phantom(seed: int, shape: Sequence[int] = SHAPE) -> tuple[Array, Array]:
    """An ellipsoid of two brightnesses in grey surroundings: image and label, (X, Y, Z)."""
    random = np.random.default_rng(seed)
    where = np.indices(shape).transpose(1, 2, 3, 0)
    centre = np.array(shape) / 2 + random.uniform(-2, 2, 3)
    radii = np.array([6.0, 10.0, 6.0]) * random.uniform(0.9, 1.1, 3)
    inside = (((where - centre) / radii) ** 2).sum(axis=-1) < 1
    label = np.where(inside, np.where(where[..., 1] > centre[1], 1, 2), 0).astype(np.uint8)
    brightness = 100 + 100 * (label == 1) + 60 * (label == 2)
    return (brightness + random.normal(0, 8, shape)).astype(np.float32), label


def save(path: Path, array: Array, affine: Array | None = None, pair: bool = False) -> Path:
    """Writes a NIfTI, 1 mm and RAS unless an affine is given; a pair has .hdr and .img."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind: Any = nib.nifti1.Nifti1Pair if pair else nib.nifti1.Nifti1Image
    kind(array, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def save_mgh(path: Path, array: Array, affine: Array) -> None:
    """Writes a file of FreeSurfer."""
    kind: Any = nib.freesurfer.mghformat.MGHImage
    kind(array, affine).to_filename(path)


def save_hdf5(path: Path, arrays: Mapping[str, Array], spacing_mm: float | None = 1.0) -> Path:
    """Writes datasets, each with its voxel size unless that is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
            if spacing_mm is not None:
                file[name].attrs["spacing_mm"] = (spacing_mm,) * 3
    return path


def load(path: Path) -> Array:
    """The voxels of a NIfTI."""
    return np.asarray(nib.nifti1.load(path).dataobj)


def dice(one: Array, other: Array) -> float:
    """Mean Dice of the classes of the phantoms."""
    found = []
    for value in CLASSES:
        a, b = one == value, other == value
        found.append(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))
    return float(np.mean(found))


@dataclass
class Workbench:
    """Folders of their own for each attempt, and a model that is trained when it is first needed."""

    root: Path
    _count: int = field(default=0, init=False)

    def folder(self) -> Path:
        """A new, empty folder."""
        self._count += 1
        path = self.root / f"{self._count:04d}"
        path.mkdir(parents=True)
        return path

    def cohort(self, cases: int = 6, seed: int = 0) -> Path:
        """A new folder with images/ and labels/ of the same names, the phantoms from a seed on."""
        folder = self.folder()
        for number in range(cases):
            image, label = phantom(seed + number)
            save(folder / "images" / f"case{number}.nii.gz", image)
            save(folder / "labels" / f"case{number}.nii.gz", label)
        return folder

    def overrides(self, data: Path, *others: str, **keys: str) -> list[str]:
        """Those of a command on a cohort of `cohort`; `keys` are keys of its dataset."""
        dataset = {
            "path": ".",
            "patterns": '{a: {mri: "images/*.nii.gz", label: "labels/*.nii.gz"}}',
            "labels_names": "{1: anterior, 2: posterior}",
            **keys,
        }
        file = data / "conf" / "datasets" / "mine.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"    {key}: {value}" for key, value in dataset.items()]
        file.write_text("\n".join(["datasets:", "  mine:", *lines, ""]), encoding="utf-8")
        return [
            "--config-dir",
            str(data / "conf"),
            "datasets=mine",
            f"datasets.main_path={data}",
            f"datasets.output_path={data / 'outputs'}",
            *FAST,
            *others,
        ]

    def train(self, data: Path, *others: str, epochs: int = 2, **keys: str) -> Answer:
        """Trains on a cohort from random weights."""
        given = self.overrides(data, f"lightning.max_epochs={epochs}", *others, **keys)
        return run_command("train", *given)

    @cached_property
    def model(self) -> Path:
        """The folder of a run on phantoms, good enough to segment others."""
        data = self.cohort(10)
        answer = self.train(data, "models.lr=1e-2", "datasets.train_ratio=0.8", epochs=14)
        assert answer.code == 0, answer.text
        return self.run_of(data)

    def run_of(self, data: Path) -> Path:
        """The folder of the one run on a cohort."""
        (run,) = (path.parent for path in (data / "outputs").glob("*/config.yaml"))
        return run

    def predict(self, *scans: Path, options: Sequence[str] = ()) -> tuple[Answer, Path]:
        """The answer of `predict`, and the folder of the segmentations."""
        output = self.folder() / "segmentations"
        return run_command("predict", self.model, *scans, "-o", output, *options), output


Kind = Callable[[Workbench], Iterator[Attempt]]
KINDS: dict[str, Kind] = {}
"""Name -> what tries it."""


def kind(name: str) -> Callable[[Kind], Kind]:
    """Registers a function under the name of the kind of fault that it tries."""

    def register(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return register
