"""A quick start hides modules for a while, and imports nothing that a prediction does not need."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from hsf_finetune.cli.quick_start import OF_MONAI, without_collection, without_modules


def test_hidden_modules_look_as_if_they_were_not_installed_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with without_modules("heavy_module", "json"):
        with pytest.raises(ImportError):
            importlib.import_module("heavy_module")
        assert importlib.import_module("json").loads("1") == 1  # imported before
    assert importlib.import_module("heavy_module").value == 1


def test_garbage_is_collected_again_after_an_error() -> None:
    def fail() -> None:
        with without_collection():
            assert not gc.isenabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()


def test_a_prediction_and_the_networks_of_monai_import_little() -> None:
    code = (
        "import sys\n"
        "from hsf_finetune.cli.quick_start import OF_MONAI, without_modules\n"
        "with without_modules('pydicom'):\n"
        "    import hsf_finetune.inference.ensemble, hsf_finetune.inference.segment_files\n"
        "late = {'monai', 'h5py', 'scipy.ndimage', 'hsf_finetune.data.discovery.cases'}\n"
        "print(*late & {*sys.modules})\n"
        "with without_modules(*OF_MONAI):\n"
        "    import hsf_finetune.networks.build\n"
        "    from monai.inferers.utils import sliding_window_inference\n"
        "print(*{*OF_MONAI} & {*sys.modules})\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
    assert OF_MONAI
