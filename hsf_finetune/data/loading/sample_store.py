"""Preprocessed cases, decoded once and kept in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import psutil
import torch

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.grid import Sample, load_case
from hsf_finetune.data.volumes.affines import voxel_size_mm
from hsf_finetune.data.volumes.read_volume import read_shape
from hsf_finetune.system.errors import DataError, OutputError, SeveralErrors, UserError
from hsf_finetune.system.files import atomic_write, cache_folder

Progress = Callable[[int, int], None]

_MEMORY_SHARE = 0.5
"""Largest share of the free memory that the cache may take."""

_FORMAT = 2
"""Raised whenever preprocessing changes, so that stale files are not read."""


class SampleStore:
    """Preprocessed cases by number.

    Args:
        cases: the cases.
        settings: cache mode and folder, target spacing.
    """

    def __init__(self, cases: Sequence[Case], settings: DatasetsSettings) -> None:
        self.cases = tuple(cases)
        self._spacing = settings.target_spacing_mm
        self._folder = Path(settings.cache_dir or cache_folder() / "samples").expanduser()
        self._kept: dict[int, Sample] = {}
        self._voxels: dict[int, npt.NDArray[np.int64]] = {}
        self.mode: Literal["auto", "memory", "disk", "off"] = settings.cache
        if settings.cache == "auto":
            self.mode = _choose_mode(cases, settings.target_spacing_mm)

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.cases)

    def view(self, cases: Sequence[Case]) -> SampleView:
        """Some of the cases, numbered from 0, over the same cache."""
        number = {case.name: n for n, case in enumerate(self.cases)}
        return SampleView(self, [number[case.name] for case in cases])

    def prepare(self, progress: Progress | None = None) -> None:
        """Reads and checks every case once, filling the cache.

        Raises:
            SeveralErrors: every case that cannot be used, with its reason.
            OutputError: the disk cache cannot be written.
        """
        problems: list[UserError] = []

        def load(index: int) -> UserError | None:
            try:
                self._keep(index)
            except OutputError:
                # A full disk is no fault of the case, and the others would meet it too.
                raise
            except UserError as error:
                return error
            return None

        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
            for done, problem in enumerate(pool.map(load, range(len(self.cases)))):
                if problem is not None:
                    problems.append(problem)
                if progress:
                    progress(done + 1, len(self.cases))
        if problems:
            count = f"{len(problems)} of {len(self.cases)} cases cannot be used:"
            raise SeveralErrors(count, problems)

    def sample(self, index: int) -> Sample:
        """The preprocessed case of that number."""
        if index in self._kept:
            return self._kept[index]
        if self.mode == "disk":
            return self._from_disk(index)
        return load_case(self.cases[index], self._spacing)

    def row_voxels(self, index: int) -> npt.NDArray[np.int64]:
        """Voxels of each label row of a case, (rows,); `prepare` counts them."""
        if index not in self._voxels:
            self._voxels[index] = _row_voxels(self.cases[index], self.sample(index))
        return self._voxels[index]

    def _keep(self, index: int) -> None:
        case = self.cases[index]
        if self.mode == "disk":
            sample = self._from_disk(index)
        else:
            sample = load_case(case, self._spacing)
            if self.mode == "memory":
                self._kept[index] = sample
        self._voxels[index] = _row_voxels(case, sample)

    def _from_disk(self, index: int) -> Sample:
        path = self._folder / f"{self._fingerprint(self.cases[index])}.pt"
        if path.exists():
            try:
                stored = torch.load(path, weights_only=True)
                return Sample(stored["image"], stored["label"], tuple(stored["spacing_mm"]))
            except Exception:  # a damaged file raises anything; it is only a copy
                path.unlink(missing_ok=True)
        sample = load_case(self.cases[index], self._spacing)
        with atomic_write(path) as temporary:
            torch.save(
                {
                    "image": sample.image,
                    "label": sample.label,
                    "spacing_mm": list(sample.spacing_mm),
                },
                temporary,
            )
        return sample

    def _fingerprint(self, case: Case) -> str:
        """Changes with the files, the protocol and the preprocessing."""
        files = []
        for ref in case.volumes:
            try:
                stat = ref.path.stat()
            except OSError as error:
                raise DataError("no such file", file=ref.path) from error
            files.append([str(ref), stat.st_size, stat.st_mtime_ns, ref.spacing_mm, ref.affine])
        protocol = [[value, sorted(names)] for value, names in case.protocol.sets]
        text = json.dumps([_FORMAT, files, protocol, case.protocol.space.names, self._spacing])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class SampleView:
    """Some cases of a store, in an order of their own.

    Args:
        store: where they are kept.
        numbers: their numbers there.
    """

    def __init__(self, store: SampleStore, numbers: Sequence[int]) -> None:
        self._store = store
        self._numbers = tuple(numbers)

    def __len__(self) -> int:
        """Number of cases."""
        return len(self._numbers)

    def case(self, index: int) -> Case:
        """The case of that number."""
        return self._store.cases[self._numbers[index]]

    def sample(self, index: int) -> Sample:
        """The preprocessed case of that number."""
        return self._store.sample(self._numbers[index])

    def row_voxels(self, index: int) -> npt.NDArray[np.int64]:
        """Voxels of each label row of the case of that number, (rows,)."""
        return self._store.row_voxels(self._numbers[index])


def _row_voxels(case: Case, sample: Sample) -> npt.NDArray[np.int64]:
    rows = len(case.protocol.row_sets)
    return np.asarray(torch.bincount(sample.label.flatten(), minlength=rows).numpy())


def _choose_mode(
    cases: Sequence[Case], target_spacing_mm: Sequence[float] | None
) -> Literal["memory", "disk"]:
    """Memory if all cases fit into a share of what is free, else disk."""
    needed = sum(sample_bytes(case, target_spacing_mm) for case in cases)
    return "memory" if needed < _MEMORY_SHARE * psutil.virtual_memory().available else "disk"


def sample_bytes(case: Case, target_spacing_mm: Sequence[float] | None) -> float:
    """Size of a preprocessed case; nothing for one that reading will refuse anyway."""
    try:
        shape, affine = read_shape(case.images[0])
    except DataError:
        return 0.0
    voxels = float(np.prod(shape, dtype=np.float64))
    if target_spacing_mm is not None:
        voxels *= float(np.prod(voxel_size_mm(affine)) / np.prod(target_spacing_mm))
    return voxels * (4 * len(case.images) + 1)
