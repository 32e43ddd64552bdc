"""YAML files in a user's own folder, which others may have written, and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.read_yaml import check_yaml

_HARMLESS = re.compile(r"USER|LOGNAME|HOSTNAME|(SLURM|PBS|LSB|SGE)_\w+")
"""Environment variables that may stand in settings whatever their value."""


@contextmanager
def searching(own: Path | None) -> Iterator[None]:
    """Makes Hydra look into the user's folder before the shipped one."""
    for plugin in (_OwnFolder, _OwnFiles):  # the process of a launcher begins without them
        Plugins.instance().register(plugin)
    _OwnFolder.folder = own
    try:
        yield
    finally:
        _OwnFolder.folder = None


class _OwnFolder(SearchPathPlugin):
    """Hydra's own --config-dir comes after the shipped folder, which would shadow it."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Puts the folder before the one that finetune.yaml lies in."""
        if self.folder is not None:
            path = f"{_OwnFiles.scheme()}://{self.folder}"
            search_path.prepend("own", path, SearchPathQuery(provider="main"))


class _OwnFiles(FileConfigSource):
    """The files of the user's folder, which others may have written."""

    @staticmethod
    def scheme() -> str:
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads a file, unless it would take too long."""
        check_yaml(Path(self.path) / self._normalize_file_name(config_path))
        return super().load_config(config_path)


@contextmanager
def harmless_environment() -> Iterator[None]:
    """Lets `${oc.env:NAME}` stand for paths and numbers only.

    Settings are written into files that are shared, such as a run's config.yaml and the model's
    card, and a YAML of someone else may ask for any variable, such as a password.
    """

    def read(name: str, *default: str) -> str | None:
        value = os.environ.get(name)
        is_plain = value is None or _is_number(value) or _is_path(value)
        if is_plain or _HARMLESS.fullmatch(name):
            return oc.env(name, *default)
        raise ConfigError(
            f"the environment variable {name} is neither a path that exists nor a number",
            expected="settings that may be read by others: they are written into config.yaml",
            fix="write the text itself",
        )

    OmegaConf.register_new_resolver("oc.env", read, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text) is not None


def _is_path(text: str) -> bool:
    return os.path.isabs(text) and os.path.exists(text)
