"""Fine-tune pretrained 3D segmentation networks on a few manual segmentations.

Everything in `__all__` is imported when it is first used, so that `import hsf_finetune` is quick:

    import hsf_finetune as hf

    config = hf.compose("datasets=mine", "finetuning.pretrained=hsf", config_dir="my_conf")
    run = hf.finetune(config)
    run.model.predict("scan.nii.gz").save("seg.nii.gz")
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hsf_finetune.system.version import __version__

__all__ = [
    "ClassSpace",
    "LabelMap",
    "Schedule",
    "UserError",
    "__version__",
    "build_network",
    "check",
    "compare",
    "compose",
    "evaluate",
    "export",
    "finetune",
    "label_set_loss",
    "learn",
    "load_model",
    "plan",
    "transfer",
]

if TYPE_CHECKING:
    from hsf_finetune.api import (
        check,
        compare,
        compose,
        evaluate,
        finetune,
        load_model,
        plan,
    )
    from hsf_finetune.experiment.learn import learn
    from hsf_finetune.export.export_model import export
    from hsf_finetune.labels.classes import ClassSpace, LabelMap
    from hsf_finetune.schedule.stages import Schedule
    from hsf_finetune.system.errors import UserError
    from hsf_finetune.training.label_set_loss import label_set_loss
    from hsf_finetune.weights.transfer.free_network import build_network, transfer

_ELSEWHERE = {
    "ClassSpace": "hsf_finetune.labels.classes",
    "LabelMap": "hsf_finetune.labels.classes",
    "Schedule": "hsf_finetune.schedule.stages",
    "UserError": "hsf_finetune.system.errors",
    "build_network": "hsf_finetune.weights.transfer.free_network",
    "export": "hsf_finetune.export.export_model",
    "label_set_loss": "hsf_finetune.training.label_set_loss",
    "learn": "hsf_finetune.experiment.learn",
    "transfer": "hsf_finetune.weights.transfer.free_network",
}
"""Names that are not of `api`, and where they are."""


class _Package(ModuleType):
    """Keeps a function of `__all__` where a subpackage of the same name, `check`, is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hsf_finetune' has no attribute '{name}'")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "hsf_finetune.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
