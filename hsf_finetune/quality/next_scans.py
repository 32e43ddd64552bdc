"""Which scans without labels to segment by hand next, made ready to correct."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hsf_finetune.inference.formats.output_formats import ONLY_LABELS, write_outputs
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.quality_model import MEAN
from hsf_finetune.inference.scan_jobs import Job, plan_jobs
from hsf_finetune.system.atomic_files import write_csv
from hsf_finetune.system.errors import ConfigError, DataError, OutputError

LIST = "next.tsv"
IN_REACH = 0.3
"""With less expected Dice a scan is taken for broken, or for one of another kind."""
_POOL = 4
"""Of so many times the wanted number, those of the least expected Dice, diverse ones are chosen."""

Progress = Callable[[int, int], None]
DropKnown = Callable[[Sequence[Job]], tuple[list[Job], list[tuple[Path, str]]]]
Features = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A scan that may be segmented by hand.

    Args:
        job: its files.
        expected: mean Dice that the model expects of its own segmentation.
        features: what the network sees in it: means of its bottleneck.
    """

    job: Job
    expected: float
    features: Features


def rank_scans(
    model: Predictor,
    folder: Path,
    output: Path,
    progress: Progress,
    drop_known: DropKnown = lambda jobs: ([*jobs], []),
) -> tuple[list[Candidate], list[tuple[Path, str]]]:
    """Every scan of a folder, and those that cannot be chosen, with the reasons.

    Args:
        model: with a card that foretells Dice; its network runs in PyTorch.
        folder: of scans.
        output: folder that the chosen ones go to; what it holds is no scan.
        progress: called with (scans done, all).
        drop_known: gives those that the model may learn from, and the others with the reasons.

    Raises:
        ConfigError: the model cannot foretell Dice.
        DataError: the folder has no scan.
        OutputError: the output folder holds another list.
    """
    if (output / LIST).exists():
        raise OutputError(
            "the folder holds a list of scans, whose labels may have been corrected",
            file=output / LIST,
            fix="give another folder: -o NEXT",
        )
    if model.card.quality is None:
        raise ConfigError(
            "the model cannot foretell Dice, by which scans are chosen",
            expected="a run with quality=on and three validation subjects or more",
        )
    labels, geometry = output / "labels", model.card.hdf5
    plan = plan_jobs([folder], labels, geometry=geometry, channels=model.card.in_channels)
    jobs, known = drop_known(plan.jobs)
    found, left_out = [], [*plan.skipped, *known]
    with _BottleneckMeans(model) as means:
        for number, job in enumerate(jobs, start=1):
            try:
                segmentation = model.segment(model.read(job.channels))
                expected = next(f.dice for f in segmentation.foretold if f.class_name == MEAN)
                features = means.take()
                if expected < IN_REACH:
                    why = f"expected Dice {expected:.2f}: broken, or unlike the training data"
                    left_out.append((job.channels[0].path, why))
                else:
                    found.append(Candidate(job, expected, features))
            except DataError as error:
                left_out.append((job.channels[0].path, error.what))
            progress(number, len(jobs))
    return found, left_out


def choose_next(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Those to segment by hand: of the least expected Dice, and unlike each other.

    The first is that of the least expected Dice; each further one of the pool is that whose features
    are farthest from those chosen before (Sener and Savarese, ICLR 2018).
    """
    pool = sorted(candidates, key=lambda one: one.expected)[: _POOL * count]
    if not pool:
        return []
    features = np.stack([one.features for one in pool])
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    chosen = [0]
    nearest = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < min(count, len(pool)):
        farthest = int(nearest.argmax())
        chosen.append(farthest)
        nearest = np.minimum(nearest, np.linalg.norm(features - features[farthest], axis=1))
        nearest[chosen] = -1
    return [pool[number] for number in chosen]


def write_next(model: Predictor, chosen: Sequence[Candidate], output: Path) -> Path:
    """Writes what a person needs to correct the segmentations, and the list.

    `images` has links to the scans, `labels` the segmentations under the scans' names with tables of
    names and colours for 3D Slicer, ITK-SNAP and FreeSurfer, `pictures` a look at each.

    Returns:
        The list.
    """
    rows = []
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(chosen, start=1):
        job = one.job
        found = model.segment(model.read(job.channels))
        write_outputs(found, job.outputs, ONLY_LABELS)
        for ref in job.channels:
            link = (output / "images" / job.place).with_name(ref.path.name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(ref.path), ref.path.is_dir())
        picture = output / "pictures" / f"{number:02d}_{'_'.join(job.place.parts)}.png"
        found.draw().savefig(picture)
        paths = [os.path.abspath(path) for path in (job.channels[0].path, job.output, picture)]
        rows.append((number, paths[0], f"{one.expected:.3f}", *paths[1:]))
    header = ("rank", "scan", "expected_dice", "label", "picture")
    write_csv(output / LIST, header, rows, delimiter="\t")
    return output / LIST


# -------------------------------------------------------------------- internals
class _BottleneckMeans:
    """Records the mean over space of what the deepest level of a network gives."""

    def __init__(self, model: Predictor) -> None:
        self._layer = model.anatomy.bottleneck.modules[-1]
        self._seen: list[Tensor] = []

    def __enter__(self) -> _BottleneckMeans:
        self._hook = self._layer.register_forward_hook(self._record)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _record(self, layer: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._seen.append(output.detach().float().flatten(2).mean(dim=2).mean(dim=0).cpu())

    def take(self) -> Features:
        """The mean over the windows of a scan, (features,)."""
        seen, self._seen = self._seen, []
        found: Features = torch.stack(seen).double().mean(dim=0).numpy()
        return found
