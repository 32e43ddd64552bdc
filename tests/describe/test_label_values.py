"""Values of label files: which files are read depends on their voxels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.describe import label_values
from hsf_finetune.describe.label_values import count_values
from tests.conftest import save_nifti


@pytest.mark.parametrize(("most", "read"), [(1000, 20), (5 * 27 - 1, 5)])
def test_files_are_read_up_to_a_number_of_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, read: int
) -> None:
    monkeypatch.setattr(label_values, "_MAX_VOXELS", most)
    refs = []
    for number in range(20):
        save_nifti(tmp_path / f"{number}.nii", np.full((3, 3, 3), number + 1, np.uint8), np.eye(4))
        refs.append(VolumeRef(tmp_path / f"{number}.nii"))
    found = count_values(refs)
    assert (found.read, found.total) == (read, 20)
    assert {*found.voxels.values()} == {27}
    assert found == count_values(refs)
