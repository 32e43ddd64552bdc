"""The settings of a run, from its folder."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from hsf_finetune.config.settings import Settings
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.missing_paths import no_such_path
from hsf_finetune.system.read_yaml import read_yaml


def read_settings_of(run: Path) -> Settings:
    """The settings that a run was started with; those of version 0.1.0 are read as well.

    Raises:
        ConfigError: the folder is not one of a run, or its settings cannot be read.
    """
    config = run / "config.yaml"
    if not config.exists():
        expected = "a folder with config.yaml, splits.json and result.json"
        if not run.exists():
            raise no_such_path(ConfigError, run, expected)
        raise ConfigError("not the folder of a run", file=run, expected=expected)
    try:
        return Settings.model_validate(read_yaml(config))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError("cannot read the run's settings", file=config, found=error) from error
