"""The same settings under several presets: composed, planned, and found again on disk."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.compare_runs import FROM_SCRATCH
from hsf_finetune.experiment.resume import setting_differences
from hsf_finetune.experiment.run import find_inputs
from hsf_finetune.planning.setup import prepare
from hsf_finetune.planning.start import require_weights
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import first_free
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import RESULT
from hsf_finetune.training.trainer import one_device

DEFAULT = "full"
HSF = "hsf"
PRESETS = (
    *(DEFAULT, HSF, "linear", "gradual", "progressive", "staged", "lpft", "encoder_first"),
    FROM_SCRATCH,
)
"""Options of the `finetuning` group that are compared unless others are named."""


def settings_by_preset(
    overrides: Sequence[str], presets: Sequence[str], config_dir: Path | None
) -> dict[str, Settings]:
    """The settings of each run, all of equal length; arguments as for `compare_presets`.

    They compose, their weights load and each has a schedule before a run starts.

    Raises:
        UserError: the settings, the data or the weights do not fit together.
    """
    chosen = [o for o in overrides if _key(o) == "finetuning"]
    if chosen or len(set(presets)) < len(presets) or not presets:
        raise ConfigError(
            "choose presets with --presets; list each once",
            found=" ".join(chosen) or ",".join(presets) or "none",
            fix=f"--presets {','.join(PRESETS)}",
        )
    with_weights = {*presets} - {FROM_SCRATCH}
    default = compose("finetune", overrides, config_dir)
    if not with_weights:
        default = compose("finetune", _with_preset(overrides, FROM_SCRATCH), config_dir)
    instead = "make the runs one by one with finetune.py, and then hsf-finetune compare --runs RUN RUN ..."
    engine = one_device(default.lightning, "a comparison trains", instead)
    cohort = find_inputs(default)
    if with_weights:
        require_weights(default)
    setup = prepare(default, cohort, preview=True)
    if engine.max_epochs is None:
        engine = engine.model_copy(update={"max_epochs": setup.schedule.max_epochs})
    wanted = {}
    for preset in presets:
        settings = compose("finetune", _with_preset(overrides, preset), config_dir)
        settings = settings.model_copy(update={"lightning": engine})
        schedule = setup.with_settings(settings).schedule
        for remark in schedule.remarks:
            if remark.startswith("lightning.max_epochs"):
                console.say(f"{preset}: {remark}")
        wanted[preset] = settings
    return wanted


_OF_HSF = tuple(f"finetuning.{name}" for name in ("mode", "depth", "unfreeze_frequency"))
"""Settings of HSF's unfreezing, which no other preset knows."""


_OF_PRESETS = ("finetuning.", "weights.")
"""What a preset may set."""


def _with_preset(overrides: Sequence[str], preset: str) -> list[str]:
    if preset != HSF:
        overrides = [o for o in overrides if _key(o) not in _OF_HSF]
    if preset != FROM_SCRATCH:
        return [*overrides, f"finetuning={preset}"]
    # The overrides name the weights that the others start from.
    names = ("pretrained", "external_weights_path")
    weights = ("weights", *(f"{group}.{n}" for group in ("finetuning", "weights") for n in names))
    rest = [o for o in overrides if _key(o) not in weights]
    return [*rest, f"finetuning={preset}", "finetuning.pretrained=none"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def find_comparison_folder(wanted: Mapping[str, Settings], output: Path | None) -> Path:
    """The folder of the comparison, in which no run has other settings.

    Raises:
        ConfigError: one has, in the folder that the user names.
    """
    if output is not None:
        output = output.expanduser().resolve()
        for preset, settings in wanted.items():
            different = _list_differences(output / preset, settings)
            if different:
                raise ConfigError(
                    "the folder has a run of other settings",
                    file=output / preset,
                    found="\n".join(different),
                    fix="name another folder with --output, or leave it out",
                )
        return output
    first = next(iter(wanted.values()))
    root = Path(first.datasets.output_path).expanduser()
    for folder in sorted(root.glob("*_comparison_*"), reverse=True):
        begun = any((folder / preset / "config.yaml").exists() for preset in wanted)
        if begun and not any(_list_differences(folder / p, wanted[p]) for p in wanted):
            return folder
    return free_folder(root, first.name or "_".join(first.datasets.datasets))


def free_folder(root: Path, name: str) -> Path:
    """A folder that does not exist yet, named after the time."""
    safe = re.sub(r"[^-0-9A-Za-z_]+", "_", name)
    return first_free(root / f"{time.strftime('%Y%m%d-%H%M%S')}_comparison_{safe}")


def other_finished_presets(folder: Path, wanted: Mapping[str, Settings]) -> list[str]:
    """Presets that have ended in a comparison's folder, beside those that are wanted.

    Those whose settings differ within the groups `finetuning` and `weights` alone.
    """
    first = next(iter(wanted.values()))
    return [
        run.name
        for run in (path.parent for path in sorted(folder.glob(f"*/{RESULT}")))
        if run.name not in wanted
        and all(line.startswith(_OF_PRESETS) for line in _list_differences(run, first))
    ]


def _list_differences(run: Path, settings: Settings) -> list[str]:
    """Settings in which a run differs from those wanted, a line each.

    Unlike for a resume, the device counts: costs on two devices are no comparison.
    """
    if not (run / "config.yaml").exists():
        return []
    try:
        return [*setting_differences(run, settings, ("run_dir", "resume", "reset")).values()]
    except ConfigError as error:
        return [str(error)]
