"""Preprocessed cases, decoded once and kept in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import psutil
import torch

from hsf_finetune.data.cases import Case
from hsf_finetune.data.preprocessing import Sample, load_case
from hsf_finetune.data.volumes import is_hdf5
from hsf_finetune.errors import DataError, UserError, UserErrors
from hsf_finetune.files import atomic_write
from hsf_finetune.settings import DatasetsSettings, cache_folder

Progress = Callable[[int, int], None]

_MEMORY_SHARE = 0.5
"""Largest share of the free memory that the cache may take."""

_FORMAT = 1
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
        self.mode = _choose_mode(cases) if settings.cache == "auto" else settings.cache

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
            UserErrors: every case that cannot be used, with its reason.
        """
        problems: list[UserError] = []

        def load(index: int) -> UserError | None:
            try:
                self._keep(index)
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
            raise UserErrors(count, problems)

    def sample(self, index: int) -> Sample:
        """The preprocessed case of that number."""
        if index in self._kept:
            return self._kept[index]
        if self.mode == "disk":
            return self._from_disk(index)
        return load_case(self.cases[index], self._spacing)

    def _keep(self, index: int) -> None:
        if self.mode == "disk":
            self._from_disk(index)
        else:
            sample = load_case(self.cases[index], self._spacing)
            if self.mode == "memory":
                self._kept[index] = sample

    def _from_disk(self, index: int) -> Sample:
        path = self._folder / f"{self._fingerprint(self.cases[index])}.pt"
        if path.exists():
            try:
                stored = torch.load(path, weights_only=True)
                return Sample(stored["image"], stored["label"], tuple(stored["spacing_mm"]))
            except (RuntimeError, EOFError, KeyError):
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
        for ref in (*case.images, case.label):
            stat = ref.path.stat()
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


def _choose_mode(cases: Sequence[Case]) -> str:
    """Memory if all cases fit into a share of what is free, else disk."""
    needed = sum(_voxels(case) * (4 * len(case.images) + 1) for case in cases)
    return "memory" if needed < _MEMORY_SHARE * psutil.virtual_memory().available else "disk"


def _voxels(case: Case) -> int:
    ref = case.images[0]
    if is_hdf5(ref.path):
        return int(ref.path.stat().st_size)
    try:
        shape = nib.load(ref.path).shape
    except Exception as error:
        raise DataError(
            "the file is damaged or incomplete",
            file=ref,
            found=f"{type(error).__name__}: {error}",
            fix="copy or convert it again, or list it under the dataset's exclude:",
        ) from error
    count = 1
    for size in shape:
        count *= int(size)
    return count
