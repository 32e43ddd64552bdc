"""Runs that are killed, damaged, or changed under the user: resumed they end the same, or say why not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from field.workbench import Attempt, Workbench, judge, kind, phantom, run_command, run_forked, save
from hsf_finetune.cli.main import EXIT_TERMINATED

EPOCHS = 3
KILLS = 5
"""Seeds of `kills` and `terminations`; benchmarks/field_reports.py --kills 100 tries more."""
_CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.copyfile")
DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "overwritten": lambda path: path.write_bytes(b"\xff\x00x" * (path.stat().st_size // 3 + 1)),
}
FILES = (
    "checkpoints/last.ckpt",
    "checkpoints/best.ckpt",
    "checkpoints/previous.ckpt",
    "metrics.csv",
    "splits.json",
    "config.yaml",
    "ledger.csv",
    "schedule.json",
    "census.csv",
    "environment.json",
    "check.json",
)


class Campaign:
    """A run of three epochs on phantoms, and its end where nothing happens to it."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.data = bench.cohort(5)
        others = [f"lightning.max_epochs={EPOCHS}", "augmentation=mri", "models.dropout=0.2"]
        others += [
            "finetuning=hsf",
            "finetuning.unfreeze_frequency=1",
            "finetuning.pretrained=none",
        ]
        self._given = ("train", *bench.overrides(self.data, *others))
        counted = self.data / "changes"
        whole = self._start(self.run(), before=partial(_watch, counted, 0))
        assert whole.code == 0, whole.text
        self.changes = len(counted.read_bytes())
        self.weights = weights_of(self.run())

    def run(self) -> Path:
        """The folder of a run; always the same, so that equal runs have equal settings."""
        return self.data / "outputs" / "run"

    def kill(self, seed: int, how: signal.Signals = signal.SIGKILL) -> Attempt:
        """Kills a run at one of its changes of files, and resumes it."""
        number = random.Random(seed).randint(1, self.changes)
        shutil.rmtree(self.run(), ignore_errors=True)
        counted = self.data / f"changes_{how.name}_{seed}"
        stopped = self._start(self.run(), before=partial(_watch, counted, number, how))
        ended = (self.run() / "result.json").exists()
        name = f"seed {seed}, at change {number} of {self.changes}"
        if how == signal.SIGTERM and stopped.code != (0 if ended else EXIT_TERMINATED):
            return Attempt(name, "wrong", f"exit code {stopped.code}: {stopped.text[-500:]}")
        if not ended:
            resumed = self._start(self.run(), "resume=auto")
            if resumed.code != 0:
                return Attempt(name, "wrong", resumed.text[-500:])
        left = [path.name for path in self.run().rglob(".partial-*")] if not ended else []
        same = equal(weights_of(self.run()), self.weights) and not left
        return Attempt(name, "right" if same else "wrong", f"left {left}")

    def interrupted(self) -> Path:
        """A run that was killed in its last epoch, made once; a copy of it lies in `run`."""
        kept = self.data / "kept"
        if not kept.exists():
            shutil.rmtree(self.run(), ignore_errors=True)
            self._start(self.run(), before=partial(_die_in_epoch, EPOCHS - 1))
            shutil.copytree(self.run(), kept)
        shutil.rmtree(self.run(), ignore_errors=True)
        shutil.copytree(kept, self.run())
        return self.run()

    def damage(self, file: str, how: str) -> Attempt:
        """Damages a file of an interrupted run, and resumes it: the same end, or a clear message."""
        DAMAGES[how](self.interrupted() / file)
        answer = self._start(self.run(), f"resume={self.run()}")
        right = answer.code == 0 and equal(weights_of(self.run()), self.weights)
        return judge(f"{file} {how}", answer, right)

    def resume(self) -> Any:
        """The answer of resuming the interrupted run."""
        return self._start(self.run(), f"resume={self.run()}")

    def _start(self, run: Path, *more: str, before: Callable[[], None] | None = None) -> Any:
        return run_forked([*self._given, f"run_dir={run}", *more], self.data, before).answer


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """The newest weights of a run."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    weights: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return weights


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether weights are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _watch(counted: Path, fatal: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Counts changes of files below `outputs` as bytes of a file; a signal comes at one of them."""
    file = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = 0

    def see(event: str, arguments: Sequence[Any]) -> None:
        nonlocal count
        if event not in _CHANGES or not isinstance(arguments[0], (str, os.PathLike)):
            return
        if f"{os.sep}outputs{os.sep}" not in os.fspath(arguments[0]):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        os.write(file, b"x")
        if count == fatal:
            os.kill(os.getpid(), how)

    sys.addaudithook(see)


def _die_in_epoch(epoch: int) -> None:
    from hsf_finetune.training.module import SegmentationModule

    step = SegmentationModule.training_step

    def fatal(self: SegmentationModule, *given: Any, **named: Any) -> Any:
        if self.current_epoch == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *given, **named)

    SegmentationModule.training_step = fatal  # type: ignore[method-assign]


_CAMPAIGNS: dict[Path, Campaign] = {}


def campaign(bench: Workbench) -> Campaign:
    """The campaign of a workbench."""
    if bench.root not in _CAMPAIGNS:
        _CAMPAIGNS[bench.root] = Campaign(bench)
    return _CAMPAIGNS[bench.root]


@kind("kills")
def kills(bench: Workbench) -> Iterator[Attempt]:
    """SIGKILL at any change of a file; resumed, the weights are those of an uninterrupted run."""
    yield from (campaign(bench).kill(seed) for seed in range(KILLS))


@kind("terminations")
def terminations(bench: Workbench) -> Iterator[Attempt]:
    """SIGTERM, as from a cluster: its exit code, and nothing is lost."""
    yield from (campaign(bench).kill(seed, signal.SIGTERM) for seed in range(min(KILLS, 12)))


@kind("damaged files of a run")
def damaged(bench: Workbench) -> Iterator[Attempt]:
    yield from (campaign(bench).damage(file, how) for file in FILES for how in DAMAGES)


@kind("runs that change under the user")
def changed(bench: Workbench) -> Iterator[Attempt]:
    made = campaign(bench)
    run = made.interrupted()
    split = (run / "splits.json").read_bytes()
    image, label = phantom(70)
    new = [
        save(made.data / kind / "case9.nii.gz", a)
        for kind, a in (("images", image), ("labels", label))
    ]
    answer = made.resume()
    right = answer.says("not used", "case9") and (run / "splits.json").read_bytes() == split
    yield judge("a case that was added", answer, right and equal(weights_of(run), made.weights))
    for path in new:
        path.unlink()
    run = made.interrupted()
    moved = [made.data / kind / "case1.nii.gz" for kind in ("images", "labels")]
    for path in moved:
        path.rename(path.with_suffix(".away"))
    answer = made.resume()
    yield judge("a case that was removed", answer, answer.code == 2 and answer.says("case1"))
    for path in moved:
        path.with_suffix(".away").rename(path)
    run = made.interrupted()
    with FileLock(run / ".lock"):
        answer = made.resume()
    yield judge("two resumes", answer, answer.code == 2 and answer.says("another process"))
    run = made.interrupted()
    (run / "checkpoints" / ".partial-x.ckpt").write_bytes(b"half")
    answer = made.resume()
    yield judge("a half-written file", answer, answer.code == 0 and not [*run.rglob(".partial-*")])
    answer = made.resume()
    yield judge("a run that has ended", answer, answer.code == 2)
    answer = run_command("evaluate", run)
    yield judge("evaluate", answer, answer.code == 0)
