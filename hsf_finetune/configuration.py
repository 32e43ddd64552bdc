"""From Hydra's composed configuration to settings: the only module that knows Hydra."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hsf_finetune.errors import ConfigError
from hsf_finetune.settings import Settings

Task = Callable[[Settings], object]


def conf_folder() -> Path:
    """The folder of the shipped YAML files, in a checkout or in an installed package."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def launch(config: str, task: Task, arguments: Sequence[str] | None = None) -> None:
    """Composes a configuration from the command line and hands it to a task.

    Args:
        config: `finetune` or `train`.
        task: what to do with the settings.
        arguments: Hydra's command line; None is this process's.

    Raises:
        ConfigError: the configuration cannot be composed, or holds wrong values.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = get_args_parser().parse_args(given)
    if not (options.help or options.hydra_help or options.info or options.shell_completion):
        if not options.multirun:
            compose(config, options.overrides, options.config_dir)
    run = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config)(
        lambda composed: task(read_settings(composed, options.config_dir))
    )
    program = sys.argv[0]
    try:
        sys.argv = [program, *given]
        run()
    finally:
        sys.argv = [program, *sys.argv[1:]]


def compose(
    config: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Settings:
    """The settings that a command line would give, without running anything.

    Args:
        config: `finetune` or `train`.
        overrides: as on the command line (`models.lr=1e-3`).
        config_dir: a folder with the user's own groups, such as `datasets/mine.yaml`.

    Raises:
        ConfigError: an unknown group, option or key, or a wrong value.
    """
    where = Path(config_dir).expanduser().resolve() if config_dir else None
    if where is not None and not where.is_dir():
        raise ConfigError("--config-dir is not a folder", file=where)
    search = [*overrides]
    if where is not None:
        search.append(f"hydra.searchpath=[file://{where}]")
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            composed = hydra.compose(config, overrides=search)
    except (HydraException, OmegaConfBaseException) as error:
        raise _composition_error(config, error) from error
    return read_settings(composed, config_dir)


def read_settings(composed: DictConfig, config_dir: str | Path | None = None) -> Settings:
    """Validates a composed configuration.

    Raises:
        ConfigError: every wrong key and value at once, each with its path.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError("the configuration cannot be resolved", found=str(error)) from error
    assert isinstance(plain, dict)
    try:
        return Settings.model_validate(_with_number_keys(plain))
    except ValidationError as error:
        raise _validation_error(error, plain, config_dir) from error


# -------------------------------------------------------------------- internals
def _with_number_keys(tree: Any) -> Any:
    """The same tree with keys that are written as numbers made numbers.

    Hydra's `+labels.9=3` adds the string '9' beside the YAML's integer keys.
    """
    if isinstance(tree, Mapping):
        return {
            int(k) if isinstance(k, str) and re.fullmatch(r"-?\d+", k) else k: _with_number_keys(v)
            for k, v in tree.items()
        }
    if isinstance(tree, list):
        return [_with_number_keys(item) for item in tree]
    return tree


def _composition_error(config: str, error: Exception) -> ConfigError:
    text = str(error)
    key = re.search(r"Key '([^']+)' is not in struct|Could not override '([^']+)'", text)
    override = re.search(r"Could not override '([^']+)'", text)
    if key and override:
        return _unknown_key(config, override.group(1))
    return ConfigError("the configuration cannot be composed", found=text)


def _unknown_key(config: str, path: str) -> ConfigError:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        known = _paths(OmegaConf.to_container(hydra.compose(config), resolve=False))
    return ConfigError(
        f"there is no setting '{path}'", fix=_did_you_mean(path, known) or _list_known(path, known)
    )


def _paths(tree: object, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    found = []
    for key, value in tree.items():
        found += [f"{prefix}{key}", *_paths(value, f"{prefix}{key}.")]
    return found


def _did_you_mean(path: str, known: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    if not close:
        last = path.rsplit(".", 1)[-1]
        same_end = [k for k in known if difflib.SequenceMatcher(None, k.rsplit(".", 1)[-1], last).ratio() > 0.8]
        close = same_end[:1]
    return f"did you mean '{close[0]}'?" if close else None


def _list_known(path: str, known: Sequence[str]) -> str:
    group = path.rsplit(".", 1)[0] if "." in path else ""
    siblings = [k for k in known if k.rpartition(".")[0] == group]
    return f"settings of '{group or 'the top level'}': {', '.join(siblings)}"


def _validation_error(
    error: ValidationError, plain: dict[Any, Any], config_dir: str | Path | None
) -> ConfigError:
    """All of pydantic's complaints in one message, with paths as on the command line."""
    lines = [_complaint(detail) for detail in error.errors()]
    count = "a setting is wrong:" if len(lines) == 1 else f"{len(lines)} settings are wrong:"
    return ConfigError("\n".join([count, *lines]), file=config_dir)


def _complaint(detail: ErrorDetails) -> str:
    # The name of a union's chosen member stands in the path, but not in the YAML.
    location = [str(part) for part in detail["loc"]]
    if location[:1] == ["models"] and len(location) > 1:
        location.pop(1)
    path = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
        return f"  {path}: there is no such setting; {hint}"
    if detail["type"] == "missing":
        return f"  {path}: this setting is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"  {path}: {message[0].lower()}{message[1:]} (found {detail['input']!r})"


def _known_keys(location: Sequence[str]) -> list[str]:
    """Keys of the settings class that a path leads to."""
    from hsf_finetune import settings

    classes: dict[str, type[BaseModel]] = {
        "": settings.Settings,
        "datasets": settings.DatasetsSettings,
        "finetuning": settings.FinetuningSettings,
        "augmentation": settings.AugmentationSettings,
        "lightning": settings.LightningSettings,
        "logger": settings.LoggerSettings,
        "models": settings.UNetSettings,
    }
    if len(location) >= 5 and location[:2] == ["datasets", "datasets"]:
        return list(settings.PatternSettings.model_fields)
    if len(location) >= 3 and location[:2] == ["datasets", "datasets"]:
        return list(settings.DatasetSettings.model_fields)
    return list(classes.get(location[0] if location else "", settings.Settings).model_fields)
