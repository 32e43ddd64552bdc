"""The folders that a run consists of: folds and a final model, teachers and students, or itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.evaluation.finished_runs import FINAL
from hsf_finetune.system.run_folder import fold_folders


@dataclass(frozen=True)
class RunParts:
    """Which folders of a run hold what.

    Args:
        folder: of the run.
    """

    folder: Path

    @property
    def folds(self) -> list[Path]:
        """Its folds; none for a run of a single split."""
        return fold_folders(self.folder)

    @property
    def runs(self) -> list[Path]:
        """Its folds and the run on all cases, or itself: each made by the same recipe."""
        return [*self.folds, self.folder / FINAL] if self.folds else [self.folder]

    @property
    def scored(self) -> list[Path]:
        """Of each fold, or of the run, the folder of the model that was scored: the last student's."""
        return [_last(run) for run in self.folds or [self.folder]]

    @property
    def started(self) -> Path:
        """A folder whose model started from the pretrained one that was scored: not a student's."""
        return next(iter(self.trainings.values()))[0]

    @property
    def used(self) -> Path:
        """The folder of the model that segments new scans."""
        return _last(self.runs[-1])

    @property
    def trainings(self) -> dict[str, list[Path]]:
        """Whose training (`teacher`, `student`; `` where all is one) -> a folder of each run."""
        found: dict[str, list[Path]] = {}
        for run in self.runs:
            if _last(run) == run:
                found.setdefault("", []).append(run)
                continue
            if (run / "teacher").exists():
                found.setdefault("teacher", []).append(run / "teacher")
            students = [*sorted(run.glob("student_*")), _last(run)]
            for number, student in enumerate(students, start=1):
                name = f"student {number}" if len(students) > 1 else "student"
                found.setdefault(name, []).append(student)
        return found


def name_part(part: Path) -> str:
    """The fold that a folder of `RunParts.scored` is of."""
    return part.parent.name if part.name == FINAL else part.name


def _last(run: Path) -> Path:
    return run / FINAL if (run / FINAL).exists() else run
