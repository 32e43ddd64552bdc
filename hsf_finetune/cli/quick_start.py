"""A quick start: less is imported, and nothing looks for garbage meanwhile."""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from hsf_finetune.cli.late_packages import LaterName, delay_init, names_inside

OF_MONAI = (
    "ignite", "jsonschema", "matplotlib", "pandas", "pydicom", "scipy.signal", "scipy.stats",
    "skimage", "tensorboard",
)  # fmt: skip
"""What MONAI imports with itself where it is installed; its networks need none of it."""
_LATE_OF_MONAI = (
    "apps", "data", "metrics", "networks", "networks.blocks", "networks.layers", "networks.nets",
    "transforms", "transforms.croppad",
)  # fmt: skip
"""Packages of MONAI whose `__init__` does nothing but import all that is inside of them."""

_modules: dict[str, Any] = sys.modules


@contextmanager
def without_modules(*names: str) -> Iterator[None]:
    """Makes optional modules look as if they were not installed; those imported before stay.

    Args:
        names: what others import where it is installed, and what is not needed here.
    """
    hidden = [name for name in names if name not in _modules]
    _modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            _modules.pop(name, None)


def delay_f2py() -> None:
    """SciPy looks at each name in NumPy, of which its compiler of Fortran takes long to import."""
    importlib.import_module("numpy")
    delay_init("numpy.f2py", {})


@contextmanager
def without_collection() -> Iterator[None]:
    """Stops the search for garbage, which takes a fifth of the time of imports and finds none.

    Nor is what was imported searched through when the process ends.
    """
    was_on = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def import_training() -> None:
    """Imports what training needs, in half of the time that Lightning and MONAI take by themselves.

    Lightning imports PyTorch's compiler and all of TorchMetrics; it needs one class of the former
    and two of the latter. The rest is imported when something asks for it.
    """
    metrics = {
        "__version__": LaterName("torchmetrics.__about__", "__version__"),
        "Metric": LaterName("torchmetrics.metric", "Metric"),
        "MetricCollection": LaterName("torchmetrics.collections", "MetricCollection"),
        "_logger": logging.getLogger("torchmetrics"),
    }
    # Types of what metrics draw; they draw nothing without being told to.
    plots = {"_AX_TYPE": object, "_PLOT_OUT_TYPE": object, "plot_single_or_multi_val": _draw_metric}
    compiler = {
        # Outside of a compiled function, these do nothing.
        "disable": lambda function=None, *_, **__: function or (lambda given: given),
        "graph_break": lambda *_: None,
        "OptimizedModule": type("OptimizedModule", (), {}),
    }
    with without_collection():
        import torch  # noqa: F401

        delay_f2py()
        delay_init("torch._dynamo", compiler, [])
        # Where determinism is chosen, PyTorch notes it there.
        delay_init("torch._inductor", {}, ["config", "custom_graph_pass"])
        delay_init("torchmetrics", metrics)
        delay_init("torchmetrics.utilities", {})
        delay_init("torchmetrics.utilities.plot", plots)
        import_monai()
        with without_modules(*OF_MONAI):
            importlib.import_module("monai.metrics.utils")


def import_monai() -> None:
    """Imports what networks and metrics of MONAI need themselves, when they are imported.

    MONAI imports all of itself with any part of it, which takes a second.
    """
    delay_init("monai", names_inside("monai") | {"__version__": metadata.version("monai")})
    for name in _LATE_OF_MONAI:
        delay_init(f"monai.{name}", names_inside(f"monai.{name}"))
    with without_modules(*OF_MONAI, "requests"):
        importlib.import_module("monai.apps.utils")
        importlib.import_module("nibabel")


def _draw_metric(*given: Any, **named: Any) -> Any:
    """What TorchMetrics draws a metric with."""
    plot = _modules["torchmetrics.utilities.plot"]
    plot.run_init()
    return plot.plot_single_or_multi_val(*given, **named)
