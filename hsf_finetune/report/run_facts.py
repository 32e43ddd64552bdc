"""What a run was made with, in its report: data, weights, settings, versions."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.preprocessing.describe_preprocessing import describe_preprocessing
from hsf_finetune.evaluation.run_parts import RunParts, name_part
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.report.describe_training import describe_training
from hsf_finetune.report.page import Grid, Lines, Part
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import ENVIRONMENT, LEDGER, read_split
from hsf_finetune.training.training_cost import read_cost


def list_data(folder: Path, run_parts: RunParts) -> Iterator[Part]:
    """Which cases were on which side, which files were not used, and what the check found."""
    parts = run_parts.scored
    split = read_split(folder)
    yield Lines([f"Split: {split['how']}."])
    sides: dict[str, list[str]] = {}
    for side in ("train", "validation", "test"):
        for case in split[side]:
            sides.setdefault(case, []).append(side)
    if len(parts) == 1:
        yield Grid(
            ["case", "side"],
            [[case, ", ".join(of_case)] for case, of_case in sides.items()],
            title="Cases",
        )
    census = _read_csv(run_parts.used / "census.csv")
    if census and run_parts.folds:
        # Every case trains the final model, and validates it in name only.
        rows = [row for row in census[1:] if row[0] == "train"]
        yield Grid(census[0], rows, title="What the labels draw that the final model learns from")
    elif census:
        yield Grid(census[0], census[1:], title="What the labels draw")
    # Of self-training, the scans without labels are in the ledger of the whole.
    ledger = _read_csv(run_parts.runs[-1] / LEDGER)
    apart = [line for line in ledger[1:] if line[1] not in ("image", "label", "unlabelled")]
    if apart:
        rows = [[Path(line[0]).name, line[1], line[6]] for line in apart[:100]]
        yield Grid(["file", "status", "reason"], rows, title="Files that are not used")
    yield from list_findings(parts)


def list_findings(parts: Sequence[Path]) -> Iterator[Part]:
    """What the check found, each finding once, with the folds whose check found it."""
    found: dict[tuple[str, ...], list[str]] = {}
    shape = {"findings": [{"tier": str, "case": str, "what": str}]}
    files = [(name_part(part), part / "check.json") for part in parts]
    known = [(name, read_json(file, shape)) for name, file in files if file.exists()]
    for name, report in known:
        for f in report["findings"]:
            found.setdefault((f["tier"], f["case"] or "", f["what"]), []).append(name)
    if found and len(parts) > 1:
        header = ["finding", "case", "what", "folds"]
        rows = [
            [*one, "all" if len({*names}) == len(parts) else ", ".join(dict.fromkeys(names))]
            for one, names in found.items()
        ]
        yield Grid(header, rows, title="Findings")
    elif found:
        yield Grid(["finding", "case", "what"], [[*one] for one in found], title="Findings")
    elif known:
        yield Lines(["The check of the data found nothing."])


def list_weights(card: ModelCard, weights: dict[str, Any] | None) -> Iterator[Part]:
    """Where the weights came from, and what the model is."""
    rows = [["network", card.models.name], ["input channels", str(card.in_channels)]]
    rows += [["classes", ", ".join(f"{card.label_values[c]} {c}" for c in card.classes)]]
    rows += [[name, text] for name, text in describe_preprocessing(card.preprocessing).items()]
    if weights:
        share = f"{100 * weights['share_parameters']:.1f} % of the parameters"
        rows += [["started from", Path(str(weights["source"])).name], ["loaded", share]]
        rows += [
            [key, str(weights["origin"][key])]
            for key in ("licence", "citation", "url")
            if (weights.get("origin") or {}).get(key)
        ]
    yield Grid(["property", "value"], rows)


def list_settings(folder: Path, used: Mapping[str, Sequence[str]]) -> Iterator[Part]:
    """The commands, the versions of programs, what was trained with, and the settings."""
    begun = read_environment_of(folder)
    resumed = begun.get("resumed", [])
    for number, about in enumerate([begun, *resumed]):
        if command := about.get("command"):
            if number:
                yield Lines([f"Resumed on {about.get('started', '')[:10]} by:"])
            yield Lines([shlex.join(["python", *map(str, command)])], "code")
    rows: dict[str, list[str]] = {}
    for about in (begun, *resumed):
        given = {**about.get("packages", {}), "python": about.get("python", "")}
        given |= {key: about[key] for key in ("platform", "processor") if about.get(key)}
        for name, version in given.items():
            rows.setdefault(name, []).append(str(version))
    versions = [[name, ", then ".join(dict.fromkeys(found))] for name, found in rows.items()]
    yield Grid(["program", "version"], versions)
    trained = [[name.replace("_", " "), ", ".join(values)] for name, values in used.items()]
    yield Grid(
        ["trained with", "value"], trained, note="what auto stood for, where the settings have it"
    )
    yield Lines([(folder / "config.yaml").read_text(encoding="utf-8").rstrip()], "code")


def train_in_words(parts: RunParts, settings: Settings) -> str:
    """How long it trained and how; `auto` stands for what the forecast kept."""
    folders = [folder for of_each in parts.trainings.values() for folder in of_each]
    schedules = [read_json(folder / "schedule.json", {}) for folder in folders]
    used = settings_used(parts, settings)
    return describe_training(
        {name: [read_cost(one) for one in of_each] for name, of_each in parts.trainings.items()},
        schedules,
        " or ".join(used["batch_size"]),
        used["precision"],
    )


def settings_used(parts: RunParts, settings: Settings) -> dict[str, list[str]]:
    """What each training computed with: sizes and precision, which may have been `auto`."""
    known = {
        "batch_size": settings.datasets.batch_size,
        "patch_vox": settings.datasets.patch_vox,
        "precision": settings.lightning.precision,
    }
    folders = [folder for of_each in parts.trainings.values() for folder in of_each]
    files = [folder / "forecast.json" for folder in folders]
    kept = [known | (read_json(file, {}) if file.exists() else {}) for file in files]
    return {name: list(dict.fromkeys(_in_words(one[name]) for one in kept)) for name in known}


def _in_words(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def read_transfer(part: Path, settings: Settings) -> dict[str, Any] | None:
    """What the weights that a run started from gave it; None for random weights."""
    if settings.weights.pretrained == "none":
        return None
    return read_json(part / "transfer.json", {"share_parameters": float, "source": str})


def read_environment_of(part: Path) -> dict[str, Any]:
    """Versions, machine and command of a run; nothing where it did not keep them."""
    file = part / ENVIRONMENT
    shape = {"started": str, "command": [str], "python": str, "platform": str, "packages": {}}
    return read_json(file, shape) if file.exists() else {}


def _read_csv(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))
