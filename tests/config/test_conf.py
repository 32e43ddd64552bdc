"""The shipped YAML files: complete, commented, and composable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from hsf_finetune.config import settings
from hsf_finetune.config.compose import compose
from hsf_finetune.config.conf_files import conf_folder

GROUPS: dict[str, type[BaseModel]] = {
    "datasets/base.yaml": settings.DatasetsSettings,
    "models/unet.yaml": settings.UNetSettings,
    "models/monai_unet.yaml": settings.MonaiUNetSettings,
    "models/basicunet.yaml": settings.BasicUNetSettings,
    "models/dynunet.yaml": settings.DynUNetSettings,
    "models/segresnet.yaml": settings.SegResNetSettings,
    "models/swinunetr.yaml": settings.SwinUNETRSettings,
    "models/pretrained.yaml": settings.PretrainedSettings,
    "models/arunet.yaml": settings.ARUNetSettings,
    "models/nnunet.yaml": settings.NnUNetSettings,
    "models/segresnet_ds.yaml": settings.SegResNetDSSettings,
    "models/unetr.yaml": settings.UNETRSettings,
    "models/mednext.yaml": settings.MedNeXtSettings,
    "models/resnet_unet.yaml": settings.ResNetUNetSettings,
    "models/stunet.yaml": settings.STUNetSettings,
    "models/suprem_unet.yaml": settings.SuPreMUNetSettings,
    "models/anatomix.yaml": settings.AnatomixSettings,
    "models/rsunet.yaml": settings.RSUNetSettings,
    "models/primus.yaml": settings.PrimusSettings,
    "weights/default.yaml": settings.WeightsSettings,
    "finetuning/default.yaml": settings.FinetuningSettings,
    "augmentation/mri.yaml": settings.AugmentationSettings,
    "lightning/default.yaml": settings.LightningSettings,
    "logger/tensorboard.yaml": settings.LoggerSettings,
}


@pytest.mark.parametrize("file", GROUPS)
def test_a_group_lists_every_setting(file: str) -> None:
    listed = yaml.safe_load((conf_folder() / file).read_text())
    assert set(listed) == set(GROUPS[file].model_fields) - {"datasets"}


@pytest.mark.parametrize("file", [f for f in GROUPS if not f.startswith("logger")])
def test_defaults_of_yaml_and_class_agree(file: str) -> None:
    listed = yaml.safe_load((conf_folder() / file).read_text())
    fields = GROUPS[file].model_fields
    defaults = {
        key: field.default.model_dump() if isinstance(field.default, BaseModel) else field.default
        for key, field in fields.items()
    }
    differing = {
        key: (value, defaults[key])
        for key, value in listed.items()
        if (float(value) if isinstance(defaults[key], float) else value) != defaults[key]
    }
    assert differing == {}


@pytest.mark.parametrize(
    "path", sorted(conf_folder().rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_files_begin_with_a_comment(path: Path) -> None:
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("file", [*GROUPS, "datasets/custom.yaml"])
def test_keys_are_commented(file: str) -> None:
    lines = (conf_folder() / file).read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if re.match(r"\w+:", line)]
    obvious = {"name", "num_nodes", "log_every_n_steps", "offline"}
    bare = [lines[n] for n in keys if not lines[n - 1].startswith("#")]
    assert {line.split(":")[0] for line in bare} <= obvious


@pytest.mark.parametrize("config", ["finetune", "train"])
@pytest.mark.parametrize(
    "dataset", ["custom", "custom_dataset", "phantom", "hdf5", "msd_hippocampus"]
)
def test_every_dataset_composes(config: str, dataset: str) -> None:
    composed = compose(config, [f"datasets={dataset}"])
    assert composed.task == config
    assert composed.weights.pretrained == ("none" if config == "train" else None)


@pytest.mark.parametrize("experiment", [p.stem for p in (conf_folder() / "experiment").glob("*")])
def test_experiments_compose_as_their_comment_says(experiment: str) -> None:
    lines = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    command = lines[1].removeprefix("# ").split()
    assert command[:2] == ["python", "finetune.py"]
    compose("finetune", [part for part in command[2:] if part != "-m"])
