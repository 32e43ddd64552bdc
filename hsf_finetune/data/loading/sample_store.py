"""A cache of preprocessed cases, in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch

from hsf_finetune.config.settings import HSF_PREPROCESSING, DatasetsSettings, Preprocessing
from hsf_finetune.data.augment.flips import LabelPlaces
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.load_case import Sample, load_case
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid
from hsf_finetune.data.volumes.read_volume import file_stamp
from hsf_finetune.system.atomic_files import atomic_write, cache_folder
from hsf_finetune.system.errors import DataError, OutputError, SeveralErrors, UserError

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all) after each case."""

_MEMORY_SHARE = 0.5
"""Largest share of the free memory that the cache may take."""

_MOST_VOXELS = 1 << 22
"""Voxels of a volume beyond which the places of its labels are found from some of them."""

_NOT_OF_SAMPLES = {
    *("patch_vox", "window_vox", "overlap", "blending", "sigma_share"),
    *("padding", "padding_mode", "padded_size", "multiple_vox", "least_vox", "channel_names"),
    "sides",
}
"""Parts of a preprocessing that change no sample: patches, windows, padding, and sides."""

_FORMAT = 5
"""Increased whenever preprocessing changes, so that older files are not read."""


class SampleStore:
    """A cache of preprocessed cases.

    Args:
        cases: those that `prepare` reads.
        settings: cache mode and folder.
        preprocessing: of the cases.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        settings: DatasetsSettings,
        preprocessing: Preprocessing = HSF_PREPROCESSING,
    ) -> None:
        self._cases = tuple(cases)
        self.preprocessing = preprocessing
        self.mode: Literal["auto", "memory", "disk", "off"] = settings.cache
        if self.mode == "auto":
            needed = sum(estimate_sample_bytes(case, preprocessing) for case in cases)
            free = psutil.virtual_memory().available
            self.mode = "memory" if needed < _MEMORY_SHARE * free else "disk"
        self._folder = Path(settings.cache_dir or cache_folder() / "samples").expanduser()
        self._samples: dict[str, Sample] = {}
        self._places: dict[str, LabelPlaces] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Reads and checks every case once, filling the cache.

        Raises:
            SeveralErrors: every case that cannot be used, with its reason.
            OutputError: the disk cache cannot be written.
        """
        problems: list[UserError] = []

        def load(case: Case) -> UserError | None:
            try:
                sample = self.sample(case)
            except OutputError:
                # A full disk is no fault of the case, and would stop the others too.
                raise
            except UserError as error:
                return error
            if self.mode == "memory":
                self._samples[case.name] = sample
            self._places[case.name] = self._find_places(case, sample)
            return None

        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
            for done, problem in enumerate(pool.map(load, self._cases), start=1):
                if problem is not None:
                    problems.append(problem)
                if progress:
                    progress(done, len(self._cases))
        if problems:
            count = f"{len(problems)} of {len(self._cases)} cases cannot be used:"
            raise SeveralErrors(count, problems)

    def sample(self, case: Case) -> Sample:
        """A preprocessed case, from the cache where it is cached.

        Raises:
            DataError: the case cannot be used.
            OutputError: the disk cache cannot be written.
        """
        if case.name in self._samples:
            return self._samples[case.name]
        if self.mode == "disk":
            return self._from_disk(case)
        return load_case(case, self.preprocessing)

    def places(self, case: Case) -> LabelPlaces:
        """Where the labels of a case lie, and how large they are; measured by `prepare`."""
        if case.name not in self._places:
            self._places[case.name] = self._find_places(case, self.sample(case))
        return self._places[case.name]

    def _find_places(self, case: Case, sample: Sample) -> LabelPlaces:
        """Where labels lie, counted from the left, wherever the network's first axis points."""
        if self.preprocessing.orientation.startswith("L"):
            sample = replace(sample, label=sample.label.flip(0))
        return find_places(case, sample)

    def _from_disk(self, case: Case) -> Sample:
        path = self._folder / f"{self._fingerprint(case)}.pt"
        if path.exists():
            try:
                stored = torch.load(path, weights_only=True)
                return Sample(stored["image"], stored["label"], tuple(stored["spacing_mm"]))
            except Exception:  # a damaged file raises anything; it is only a copy
                path.unlink(missing_ok=True)
        sample = load_case(case, self.preprocessing)
        with atomic_write(path) as temporary:
            torch.save({**vars(sample), "spacing_mm": list(sample.spacing_mm)}, temporary)
        return sample

    def _fingerprint(self, case: Case) -> str:
        """Changes with the files, the protocol and the preprocessing."""
        files = []
        for ref in case.volumes:
            try:
                size, changed, _ = file_stamp(ref.path)
            except OSError as error:
                raise DataError("no such file", file=ref.path) from error
            files.append([str(ref), size, changed, ref.spacing_mm, ref.affine])
        protocol = [[value, sorted(names)] for value, names in case.protocol.sets]
        how = self.preprocessing.model_dump(mode="json", exclude=_NOT_OF_SAMPLES)
        text = json.dumps([_FORMAT, files, protocol, case.protocol.space.names, how])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def find_places(case: Case, sample: Sample) -> LabelPlaces:
    """Where the labels of a case lie; of a large volume only some of the voxels are looked at."""
    count, label = len(case.protocol.row_sets), sample.label
    voxels = np.asarray(torch.bincount(label.flatten(), minlength=count).numpy())
    step = max(1, round((label.numel() / _MOST_VOXELS) ** (1 / 3)))
    label = label[::step, ::step, ::step]
    where = label.nonzero()
    rows = label[where.unbind(1)].long()
    extents = np.full((count, 3, 2), np.nan)
    for axis, size in enumerate(label.shape):
        profiles = torch.bincount(rows * size + where[:, axis], minlength=count * size)
        below = profiles.reshape(count, size).cumsum(1).numpy()
        seen = below[:, -1] > 0
        shares = below[seen] / below[seen, -1:]
        first, last = ((shares >= q).argmax(1) for q in (0.05, 0.95))
        extents[seen, axis] = step * np.stack([first, last + 1], axis=1)
    return LabelPlaces(case, extents, voxels)


def estimate_sample_bytes(case: Case, preprocessing: Preprocessing) -> float:
    """Size of a preprocessed case in bytes; 0 for one that reading will refuse anyway."""
    try:
        grid = VoxelGrid.from_header(case.images[0], preprocessing)
    except DataError:
        return 0.0
    return float(np.prod(grid.shape, dtype=np.float64)) * (4 * len(case.images) + 1)
