"""A quick start hides modules for a while, and imports nothing that a prediction does not need."""

from __future__ import annotations

import gc
import importlib
import os
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
        "from hsf_finetune.cli.quick_start import OF_MONAI, delay_f2py, without_modules\n"
        "delay_f2py()\n"
        "with without_modules('pydicom'):\n"
        "    import hsf_finetune.inference.ensemble, hsf_finetune.inference.segment_files\n"
        "late = {'monai', 'h5py', 'scipy.ndimage', 'hsf_finetune.data.discovery.cases', 'requests'}\n"
        "print(*late & {*sys.modules})\n"
        "import scipy.ndimage, numpy.f2py\n"
        "print(*{'numpy.f2py.f2py2e'} & {*sys.modules})\n"
        "assert numpy.f2py.run_main and 'numpy.f2py.f2py2e' in sys.modules\n"
        "with without_modules(*OF_MONAI):\n"
        "    import hsf_finetune.networks.architectures.basicunet\n"
        "    from monai.inferers.utils import sliding_window_inference\n"
        "print(*{*OF_MONAI} & {*sys.modules})\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
    assert OF_MONAI


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each network is imported in a fork")
def test_each_network_is_imported_without_the_rest_of_monai() -> None:
    code = (
        "import os, sys, warnings\n"
        "from importlib import import_module\n"
        "import torch\n"
        "from hsf_finetune.cli.quick_start import import_monai\n"
        "from hsf_finetune.networks.build import BUILDERS\n"
        "warnings.simplefilter('ignore')\n"
        "import_monai()\n"
        "for name in BUILDERS:\n"
        "    if os.fork() == 0:\n"
        "        import_module(f'hsf_finetune.networks.architectures.{name}')\n"
        "        nets = {m for m in sys.modules if m.startswith('monai.networks.nets.')}\n"
        "        rest = {'scipy.ndimage', 'requests', 'monai.losses'} & {*sys.modules}\n"
        "        os._exit(len(nets) > 4 or bool(rest))\n"
        "    if os.wait()[1]:\n"
        "        print(name)\n"
        "import monai\n"
        "assert monai.networks.nets.SegResNet and monai.transforms.Compose and monai.losses\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
