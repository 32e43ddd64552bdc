"""The command line of finetune.py and train.py: Hydra's, with our messages and our help."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from hsf_finetune.config.compose import compose, composed, read_settings
from hsf_finetune.config.conf_files import conf_folder, groups, options_of, own_folder
from hsf_finetune.config.foreign_settings import searching
from hsf_finetune.config.settings import Settings
from hsf_finetune.system.errors import ConfigError, SeveralErrors, UserError

Task = Callable[[Settings], object]
"""Returns what a sweeper that searches maximises, such as Optuna's."""

_OPTUNA = "hydra/sweeper=optuna"

_ABOUT_HYDRA = (
    "hydra_help",
    "info",
    "shell_completion",
    "cfg",
    "config_name",
    "config_path",
    "experimental_rerun",
)
"""Flags that ask about Hydra, or for a configuration that is not ours."""


def launch(config: str, task: Task, arguments: Sequence[str] | None = None) -> None:
    """Composes a configuration from the command line and hands it to a task.

    With `--multirun`, every configuration is composed before the first one runs, and
    one that fails does not stop the others.

    Args:
        config: `finetune` or `train`.
        task: what to do with the settings.
        arguments: Hydra's command line; None is this process's.

    Raises:
        ConfigError: the configuration cannot be composed, or holds wrong values.
        UserError: what the task raised.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = get_args_parser().parse_intermixed_args(given)
    overrides, own = list(options.overrides), own_folder(options.config_dir)
    if options.help:
        print(usage(config, overrides, own))
        return
    asked = any(getattr(options, flag) for flag in _ABOUT_HYDRA)
    if not (asked or options.multirun or any(_is_of_hydra(override) for override in overrides)):
        # Without Hydra around it, Lightning starts further processes with our own command.
        task(compose(config, overrides, own))
        return
    if options.multirun and _OPTUNA in overrides:
        # What the task returns is better the higher it is.
        overrides.insert(0, "hydra.sweeper.direction=maximize")
        if importlib.util.find_spec("optuna"):
            from hsf_finetune.cli.optuna_search import prune_searches

            prune_searches()
    fixed, jobs = _jobs(overrides) if options.multirun else (overrides, [overrides])
    compositions = [composed(config, job, own) for job in jobs if options.cfg or not asked]
    if not asked:
        for composition in compositions:
            read_settings(composition)
    if compositions:
        # Hydra composes the same once more, and asks for ++ where a file lacks a setting.
        spelt = dict(zip(fixed, compositions[0].overrides, strict=True))
        overrides = [
            f"++{given}"
            if spelt.get(given, "").startswith("++") and not given.startswith("+")
            else given
            for given in overrides
        ]
    _through_hydra(config, task, options, overrides)


def _through_hydra(
    config: str, task: Task, options: argparse.Namespace, overrides: Sequence[str]
) -> None:
    """Lets Hydra sweep, or show what it is asked for.

    Raises:
        ConfigError: Hydra cannot do what its own settings say.
        Exception: what the task raised, which Hydra would print with a traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that it raises what it would print
    failed: list[tuple[str, Exception]] = []
    parent, own = os.getpid(), own_folder(options.config_dir)

    def run(_: DictConfig) -> object:
        try:
            return task(compose(config, HydraConfig.get().overrides.task, own))
        except Exception as error:
            # In a process of a launcher's own, raising is the only way to be heard.
            if os.getpid() != parent:
                raise
            failed.append((" ".join(HydraConfig.get().overrides.task), error))
            return None

    decorate = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config)
    before = sys.argv
    try:
        sys.argv = [before[0], *_flags(options), *overrides]
        with searching(own):
            decorate(run)()
    except HydraException as error:
        raise ConfigError("Hydra cannot start the runs", found=str(error)) from error
    finally:
        sys.argv = before
    _raise(failed, options.multirun)


def usage(config: str, overrides: Sequence[str], own: Path | None) -> str:
    """What `--help` prints: what the command does, every choice and every setting.

    Args:
        config: `finetune` or `train`.
        overrides: choices whose settings are to be shown.
        own: the user's own folder, if any.
    """
    tree = composed(config, overrides, own).tree
    command = f"python {config}.py" if sys.argv[0].endswith(".py") else f"hsf-finetune {config}"
    text = (conf_folder() / f"{config}.yaml").read_text()
    lead = [line.lstrip("# ") for line in text.split("\ndefaults:")[0].splitlines()]
    return "\n".join(
        [
            *lead,
            "",
            f"{command} [group=option] [group.key=value] [--config-dir DIR] [-m]",
            "",
            "  --config-dir DIR  your own options: DIR/datasets/mine.yaml is datasets=mine",
            "  -m, --multirun    one run per combination: -m seed=0,1,2",
            "  --cfg job         print the configuration and stop",
            "  --hydra-help      further flags",
            "",
            "groups and their options:",
            *(f"  {group + ':':<14}{', '.join(options_of(group, own))}" for group in groups(own)),
            "",
            f"settings and their values (the files in {conf_folder()} explain each one):",
            *(f"  {line}" for line in OmegaConf.to_yaml(tree).splitlines()),
        ]
    )


# -------------------------------------------------------------------- internals
def _is_of_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _flags(options: argparse.Namespace) -> list[str]:
    """The flags of a command line that Hydra is to see."""
    flags = []
    for name, value in vars(options).items():
        if name in ("overrides", "config_dir") or value in (None, False):
            continue
        flag = f"--{name.replace('_', '-')}"
        flags.append(flag if value is True else f"{flag}={value}")
    return flags


def _jobs(overrides: Sequence[str]) -> tuple[Sequence[str], list[list[str]]]:
    """The overrides of each run of a sweep, and those given that they stem from, in their order.

    Where only a sweeper plugin knows the runs, as for an interval, there is one without those
    settings.
    """
    try:
        parsed = OverridesParser.create().parse_overrides([*overrides])
    except HydraException:
        return overrides, [[*overrides]]  # composing them says what is wrong
    try:
        runs = [[*job] for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        return overrides, runs
    except HydraException:
        pairs = zip(overrides, parsed, strict=True)
        fixed = [given for given, override in pairs if not override.is_sweep_override()]
        return fixed, [fixed]


def _raise(failed: Sequence[tuple[str, Exception]], several: bool) -> None:
    """Raises what the runs raised, a defect of the program before an error of the user."""
    mine = []
    for _, error in failed:
        if not (isinstance(error, UserError) and several):
            raise error
        mine.append(error)
    if mine:
        names = "; ".join(name or "the defaults" for name, _ in failed)
        distinct = list({str(error): error for error in mine}.values())
        raise SeveralErrors(f"{len(mine)} run(s) failed ({names}):", distinct)
