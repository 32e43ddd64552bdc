"""A package whose `__init__` is delayed is the package itself to whoever asks for more."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from hsf_finetune.cli.late_packages import LaterName, delay_init, names_inside


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package whose `__init__` rests on its modules, and they on it."""
    name = f"package_of_{tmp_path.name}"
    folder = tmp_path / name
    (folder / "whole").mkdir(parents=True)
    (folder / "__init__.py").write_text(
        f"from {name}.light import value\nheavy = value + 1\nimport {name}.whole.inside\n"
    )
    (folder / "light.py").write_text("value = 1\n")
    (folder / "whole" / "__init__.py").write_text("")
    (folder / "whole" / "inside.py").write_text(f"from {name} import heavy\nmade = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_what_is_known_and_modules_inside_leave_init_out(package: str) -> None:
    delay_init(package, {"two": 2, "value": LaterName(f"{package}.light", "value")})
    module = importlib.import_module(package)
    assert (module.two, module.value) == (2, 1)
    assert importlib.import_module(f"{package}.light").value == 1
    assert "heavy" not in vars(module)
    assert not hasattr(module, "__wrapped__")


def test_names_from_its_own_modules_and_modules_that_ask_for_each_other_leave_init_out(
    package: str, tmp_path: Path
) -> None:
    folder = tmp_path / package
    (folder / "__init__.py").write_text("from .light import value as first\nheavy = 1\n")
    (folder / "asks.py").write_text(f"from {package} import asks, first\nsame = asks\n")
    delay_init(package, names_inside(package))
    asks = importlib.import_module(f"{package}.asks")
    assert (asks.first, asks.same) == (1, asks)
    assert "heavy" not in vars(sys.modules[package])
    assert sys.modules[package].heavy == 1


@pytest.mark.parametrize(
    "known", [{}, {"heavy": LaterName("no_such_module", "heavy")}], ids=["unknown", "moved"]
)
def test_a_name_that_is_not_known_runs_init(package: str, known: dict[str, LaterName]) -> None:
    delay_init(package, known)
    assert importlib.import_module(package).heavy == 2
    with pytest.raises(AttributeError, match="nothing"):
        _ = importlib.import_module(package).nothing


def test_modules_that_rest_on_init_are_imported_once_and_after_it(package: str) -> None:
    delay_init(package, {}, ["light"])
    assert importlib.import_module(f"{package}.light").value == 1
    assert "heavy" not in vars(sys.modules[package])
    inside = importlib.import_module(f"{package}.whole.inside")
    package_itself = sys.modules[package]
    assert inside.made is package_itself.whole.inside.made
    assert inside.heavy == 2


def test_training_imports_little_until_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from hsf_finetune.cli.quick_start import import_training\n"
        "import_training()\n"
        "import torch\n"
        "weight = torch.ones(2, requires_grad=True)\n"
        "optimizer = torch.optim.AdamW([weight])\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "import hsf_finetune.experiment.run\n"
        "late = {'torch._dynamo.eval_frame', 'torchmetrics.classification', 'pandas', 'sympy'}\n"
        "late |= {'matplotlib', 'tensorboard', 'ignite', 'jinja2', 'h5py', 'requests', 'PIL'}\n"
        "late |= {'scipy.optimize', 'monai.networks.nets.resnet'}\n"
        "print(*late & {*sys.modules})\n"
        "assert torch.compile(lambda x: x + 1, backend='eager')(weight).sum() > 0\n"
        "import torchmetrics\n"
        "assert torchmetrics.Accuracy and torchmetrics.Metric\n"
        "metric = torchmetrics.MeanMetric()\n"
        "metric.update(1.0)\n"
        "assert metric.plot()[0].axes\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
