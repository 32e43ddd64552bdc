"""From Hydra's composed configuration to settings: the only module that knows Hydra."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from hsf_finetune.config.messages import unknown_option, unknown_setting, validation_error
from hsf_finetune.config.named_weights import meant_name, read_named
from hsf_finetune.config.settings import OTHER_NAMES, DatasetSettings, Settings
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.urls import is_remote

_NEW_KEY = re.compile(
    r"^(?:\+\+)?("
    r"[\w./-]*\.(?:labels|labels_names)\.\d+="
    rf"|datasets\.(?:datasets|retention)\.[\w-]+\.(?:{'|'.join(DatasetSettings.model_fields)})="
    rf"|finetuning\.(?:{'|'.join(OTHER_NAMES)})="
    r"|[\w./-]+=\{)"
)
"""Overrides of keys that stand in no YAML."""
NAMED_WEIGHTS = "weights"
"""The folder of named weights, which is no group: `finetuning.pretrained=NAME` chooses."""
_UNREADABLE = (HydraException, OmegaConfBaseException, YAMLError, ValueError)


def conf_folder() -> Path:
    """The folder of the shipped YAML files, in a checkout or in an installed package."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


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
    given = [settable(override) for override in overrides]
    where = own_folder(config_dir)
    tree, choices = composed(config, given, where)

    def origin(path: str) -> Path | None:
        keys = {o.lstrip("+~").partition("=")[0] for o in given} - choices.keys()
        if any(f"{path}.".startswith(f"{k}.") or k.startswith(f"{path}.") for k in keys):
            return None
        group = path.partition(".")[0]
        return _yaml_file(f"{group}/{choices[group]}" if group in choices else config, where)

    return read_settings(tree, origin, where)


def read_settings(
    tree: DictConfig,
    origin: Callable[[str], Path | None] = lambda path: None,
    where: Path | None = None,
) -> Settings:
    """Validates a composed configuration, and makes its paths absolute.

    Args:
        tree: what Hydra made of YAML files and command line.
        origin: path of a setting -> the file it stems from; None is the command line.
        where: the user's own folder, whose named weights come before the shipped ones.

    Raises:
        ConfigError: every wrong key and value at once, each with its path.
    """
    try:
        plain = _with_number_keys(OmegaConf.to_container(tree, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError("the configuration cannot be resolved", found=str(error)) from error
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        raise validation_error(error, plain, origin) from error
    return _with_absolute_paths(_with_named_weights(settings, where))


def own_folder(config_dir: str | Path | None) -> Path | None:
    """The folder of `--config-dir`, absolute.

    Raises:
        ConfigError: it is no folder.
    """
    if config_dir is None:
        return None
    where = Path(config_dir).expanduser().resolve()
    if not where.is_dir():
        raise ConfigError(
            "--config-dir is not a folder",
            file=where,
            expected="a folder that holds groups, such as DIR/datasets/mine.yaml",
        )
    return where


def composed(
    config: str, overrides: Sequence[str], where: Path | None
) -> tuple[DictConfig, dict[str, str]]:
    """The configuration as it is before validation, and the option chosen for each group.

    Args:
        config: `finetune` or `train`.
        overrides: as on the command line.
        where: the user's own folder. It is searched first, so that a file there is never
            shadowed by a shipped one of the same name.

    Raises:
        ConfigError: an unknown group, option or key, or a file that is no YAML.
    """
    GlobalHydra.instance().clear()
    try:
        with (
            searching(where),
            hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())),
        ):
            tree = hydra.compose(config, overrides=[*overrides], return_hydra_config=True)
    except _UNREADABLE as error:
        raise _composition_error(error, config, overrides, where) from error
    choices = {group: str(option) for group, option in tree.hydra.runtime.choices.items()}
    OmegaConf.set_struct(tree, False)
    del tree["hydra"]
    return tree, choices


@contextmanager
def searching(where: Path | None) -> Iterator[None]:
    """Makes Hydra look into the user's folder before the shipped one."""
    _OwnFolder.where = where
    try:
        yield
    finally:
        _OwnFolder.where = None


class _OwnFolder(SearchPathPlugin):
    """Hydra's own --config-dir comes after the shipped folder, which would shadow it."""

    where: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Puts the folder before the one that finetune.yaml lies in."""
        if self.where is not None:
            search_path.prepend("own", f"file://{self.where}", SearchPathQuery(provider="main"))


Plugins.instance().register(_OwnFolder)


def groups(where: Path | None) -> list[str]:
    """The groups of settings that have options to choose from."""
    folders = [folder for base in (conf_folder(), where) if base for folder in base.iterdir()]
    return sorted(
        {
            f.name
            for f in folders
            if f.is_dir() and f.name != NAMED_WEIGHTS and any(f.glob("*.yaml"))
        }
    )


def options_of(group: str, where: Path | None) -> list[str]:
    """The options of a group, shipped or the user's own."""
    bases = [base / group for base in (conf_folder(), where) if base]
    return sorted({path.stem for base in bases for path in base.glob("*.yaml")})


def settable(override: str) -> str:
    """An override of a key that stands in no YAML, with the `++` that Hydra asks for.

    To Hydra, 1 in `labels.1` is no key of that YAML: its command line knows keys of text
    only. Nor is another name of a setting, one that a cohort's YAML leaves at its default,
    or a key of a mapping that is empty so far.
    Validation unites each with what is there.
    """
    return _NEW_KEY.sub(r"++\1", override)


# -------------------------------------------------------------------- internals
def _composition_error(
    error: Exception, config: str, overrides: Sequence[str], where: Path | None
) -> ConfigError:
    text = str(error)
    missing = re.search(r"Could not find '([^']+)/([^/']+)'", text)
    if missing:
        group, option = missing.groups()
        return unknown_option(group, option, options_of(group, where))
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        chosen = [o for o in overrides if o.lstrip("+").partition("=")[0] in groups(where)]
        try:
            tree, _ = composed(config, [] if chosen == [*overrides] else chosen, where)
        except ConfigError as first:
            return first
        return unknown_setting(unknown.group(1), _paths(OmegaConf.to_container(tree)))
    fix = None
    if isinstance(error, HydraException) and "'='" in text:
        fix = "quote a value that holds such characters: \"group.key='/a=b'\""
    return ConfigError("the configuration cannot be composed", found=text, fix=fix)


def _yaml_file(name: str, where: Path | None) -> Path | None:
    candidates = [base / f"{name}.yaml" for base in (where, conf_folder()) if base]
    return next((path for path in candidates if path.exists()), None)


def _paths(tree: object, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    found = []
    for key, value in tree.items():
        found += [f"{prefix}{key}", *_paths(value, f"{prefix}{key}.")]
    return found


def _with_number_keys(tree: Any) -> Any:
    """The same tree with keys that are written as numbers made numbers; the last one counts."""
    if isinstance(tree, Mapping):
        return {
            int(k) if isinstance(k, str) and re.fullmatch(r"-?\d+", k) else k: _with_number_keys(v)
            for k, v in tree.items()
        }
    if isinstance(tree, list):
        return [_with_number_keys(item) for item in tree]
    return tree


def _with_named_weights(settings: Settings, where: Path | None) -> Settings:
    """The same settings with the description of the weights that `pretrained` names."""
    given = settings.finetuning.pretrained
    names = options_of(NAMED_WEIGHTS, where)
    file = _yaml_file(f"{NAMED_WEIGHTS}/{given}", where) if given in names else None
    is_word = given is not None and re.fullmatch(r"[\w-]+", given) is not None
    if file is None and given not in (None, "none", "demo") and is_word:
        meant = meant_name(str(given), names)
        if meant and not Path(str(given)).exists():
            raise ConfigError(
                f"there are no weights called '{given}', and nothing is at that path",
                expected=f"a path, a URL, hf://OWNER/REPO/FILE, or a name: {', '.join(names)}",
                fix=f"did you mean finetuning.pretrained={meant}?",
            )
    named = read_named(file) if file else None
    if settings.finetuning.named not in (None, named):
        raise ConfigError(
            "finetuning.named is filled in, and cannot be given",
            fix="put it into DIR/weights/NAME.yaml: --config-dir DIR finetuning.pretrained=NAME",
        )
    return settings.model_copy(
        update={"finetuning": settings.finetuning.model_copy(update={"named": named})}
    )


def _with_absolute_paths(settings: Settings) -> Settings:
    """The same settings, which then mean the same from any working directory."""

    def absolute(path: str | None, *words: str) -> str | None:
        return path if path is None or path in words else str(Path(path).expanduser().absolute())

    data, tuning = settings.datasets, settings.finetuning
    elsewhere = tuning.named is not None or is_remote(tuning.pretrained or "")
    names = ("main_path", "output_path", "split_file", "cache_dir")
    return settings.model_copy(
        update={
            "run_dir": absolute(settings.run_dir),
            "resume": absolute(settings.resume, "auto"),
            "datasets": data.model_copy(update={n: absolute(getattr(data, n)) for n in names}),
            "finetuning": tuning.model_copy(
                update={
                    "pretrained": tuning.pretrained
                    if elsewhere
                    else absolute(tuning.pretrained, "none", "demo")
                }
            ),
        }
    )


def _with_used_augmentations(settings: Settings) -> Settings:
    """The same settings with only those augmentation presets that a stage asks for.

    Raises:
        ConfigError: a stage asks for one that is not there.
    """
    known = settings.augmentations
    wanted = [s.augmentation for s in settings.finetuning.stages if s.augmentation is not None]
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"finetuning.stages asks for an augmentation that is not there: '{name}'",
                expected=", ".join(known),
                fix=f"for a file augmentation/{name}.yaml of your own, add "
                f"+augmentation@augmentations.{name}={name}",
            )
    return settings.model_copy(update={"augmentations": {n: known[n] for n in set(wanted)}})
