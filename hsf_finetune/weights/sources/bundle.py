"""Reads MONAI bundles, weights with their description, from a folder or a zip archive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.archive import archive_names, unpacked
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.bundle_config import (
    ComputedValueError,
    ConfigObject,
    find_network,
    read_config,
)
from hsf_finetune.weights.sources.bundle_network import network_settings
from hsf_finetune.weights.sources.bundle_preprocessing import (
    BundlePreprocessing,
    read_bundle_preprocessing,
)
from hsf_finetune.weights.sources.exported_folder import with_card
from hsf_finetune.weights.sources.independent_outputs import with_background
from hsf_finetune.weights.sources.infer_network import with_inferred_network

_CARD = "model_card.json"
"""In the bundles that this package exports."""
_METADATA = re.compile(r"(?:[^/]+/)?configs/metadata\.json")
_PREFERRED = ("inference", "train")
_SUFFIXES = (".json", ".yaml", ".yml")
_MAX_LENGTH = 300
_ORIGIN_KEYS = (
    *("name", "version", "description", "authors", "copyright", "data_source", "intended_use"),
    "monai_version",
)


def is_bundle(path: Path | str) -> bool:
    """Whether a folder or archive is a MONAI bundle: it has `configs/metadata.json`."""
    path = Path(path)
    if path.is_dir():
        return (path / "configs" / "metadata.json").is_file()
    return any(_METADATA.fullmatch(name) for name in archive_names(path))


def read_bundle(path: Path | str, use_ema: bool = True, orientation: str = "RAS") -> Checkpoint:
    """Reads a bundle's weights, network, classes, channels and preprocessing.

    Its configuration is read as data: no expression (`$`) is run and no class
    (`_target_`) is imported. The weights are those of `models/model.pt`, or the tensors of
    `models/model.ts`.

    Returns:
        The weights; `models` is the network, `unread` are steps of its preprocessing that this
        package cannot follow, `origin` has the bundle's name, version,
        licence, citation, and notes on what is missing or ambiguous.

    Raises:
        WeightsError: the bundle has no such weights, or is damaged; its network is not
            supported, or two-dimensional, or described by code that would have to run.
    """
    path = Path(path)
    with unpacked(path) as root:
        if root == path:
            return _read(path, use_ema, orientation)
        found = [p.parent.parent for p in root.glob("**/configs/metadata.json")]
        inner = min(found, key=lambda p: len(p.parts))
        return replace(_read(inner, use_ema, orientation), path=path)


# -------------------------------------------------------------------- internals
def _read_own(root: Path, use_ema: bool) -> Checkpoint:
    """A bundle that this package exported, whose model card says more than a bundle can."""
    card = read_config(root / _CARD)
    weights = read_checkpoint(_weights_file(root), use_ema)
    try:
        origin = _origin(root, read_config(root / "configs" / "metadata.json"), [])
        return with_card(replace(weights, origin=origin), card)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            "the bundle's model card cannot be read",
            file=root / _CARD,
            found=f"{type(error).__name__}: {error}",
            expected="the file as hsf-finetune export wrote it",
            fix="without that file, the bundle is read as any other",
        ) from error


def _read(root: Path, use_ema: bool, orientation: str) -> Checkpoint:
    if (root / _CARD).is_file():
        return _read_own(root, use_ema)
    computed: ComputedValueError | None = None
    network = ConfigObject("", {}, "network_def", {}, root)
    notes: list[str] = []
    try:
        network = _find_description(root)
        models: dict[str, Any] | None = network_settings(network)
    except ComputedValueError as error:
        computed = error
    metadata = read_config(root / "configs" / "metadata.json")
    weights = read_checkpoint(_weights_file(root), use_ema)
    if computed:
        # What is computed is not run, but may follow from the tensors.
        weights = with_inferred_network(weights)
        models = weights.models
        if models is None:
            raise computed
        notes.append(f"its configuration computes its network, which is not run: {computed.found}")
    outputs = _channel_count(network, metadata, "outputs", "pred")
    inputs = _channel_count(network, metadata, "inputs", "image")
    prepared = _find_preprocessing(root, network, inputs, orientation)
    notes += prepared.notes
    classes = _channels(metadata, "outputs", "pred", outputs, notes)
    if classes and BACKGROUND not in classes:
        notes.append(
            "no class is the background: its outputs may be independent of each other (sigmoid), "
            "while classes in this package exclude each other"
        )
    names = _channels(metadata, "inputs", "image", inputs, notes)
    how = prepared.value
    read = replace(
        weights,
        classes=classes,
        models=models,
        in_channels=inputs,
        channel_names=names,
        preprocessing=how.model_copy(update={"channel_names": names}) if how else None,
        unread=prepared.unread,
        origin={k: weights.origin[k] for k in ("inferred", "assumed") if k in weights.origin}
        | _origin(root, metadata, notes)
        | ({"independent": True} if prepared.independent else {}),
    )
    sigmoid = prepared.independent and classes and BACKGROUND not in classes
    return with_background(read) if sigmoid and models and inputs else read


def _configs(root: Path) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """The bundle's configurations, that of inference first, and their files."""
    files = [p for p in (root / "configs").iterdir() if p.suffix in _SUFFIXES]
    files = [p for p in files if p.name != "metadata.json"]
    ranks = {stem: rank for rank, stem in enumerate(_PREFERRED)}
    for path in sorted(files, key=lambda p: (ranks.get(p.stem, len(ranks)), p.name)):
        yield read_config(path), path


def _find_description(root: Path) -> ConfigObject:
    """The description of the network in the first configuration that has one."""
    for config, path in _configs(root):
        if found := find_network(config, path):
            return found
    names = sorted(p.name for p in (root / "configs").iterdir() if p.suffix in _SUFFIXES)
    raise WeightsError(
        "the bundle does not describe its network",
        file=root / "configs",
        found=", ".join(n for n in names if n != "metadata.json") or "no configuration",
        expected="a network_def in inference.json or train.json",
        fix="choose the network yourself (models=...) and give the file of the weights: "
        "finetuning.pretrained=.../models/model.pt",
    )


def _find_preprocessing(
    root: Path, network: ConfigObject, in_channels: int | None, orientation: str
) -> BundlePreprocessing:
    """How images are prepared: by the network's configuration, else by the first that says it."""
    found = BundlePreprocessing()
    for config, path in ((network.config, network.path), *_configs(root)):
        found = read_bundle_preprocessing(config, path, in_channels, orientation)
        if found.value or found.unread:
            break
    return found


def _weights_file(root: Path) -> Path:
    path, folder = root / "models" / "model.pt", root / "models"
    for file in (path, folder / "model.ts"):
        if file.is_file():
            return file
    found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    fix = "give one of its weights files: finetuning.pretrained=.../models/FILE models=..."
    if (root / "large_files.yml").exists() or (root / "large_files.yaml").exists():
        fix = "fetch what large_files.yml lists: python -m monai.bundle download_large_files"
    raise WeightsError(
        "the bundle has no models/model.pt",
        file=path,
        found=", ".join(found) or "nothing in models/",
        expected="the weights as torch.save writes them",
        fix=fix,
    )


def _format(metadata: Mapping[str, Any], side: str, key: str) -> Mapping[str, Any]:
    """The metadata of the input image or of the prediction."""
    formats: Any = metadata.get("network_data_format")
    for name in (side, key):
        formats = formats.get(name) if isinstance(formats, Mapping) else None
    return formats if isinstance(formats, Mapping) else {}


def _channel_count(
    network: ConfigObject, metadata: Mapping[str, Any], side: str, key: str
) -> int | None:
    """Channels of one side; from the metadata where the configuration computes them."""
    name = {"inputs": "in_channels", "outputs": "out_channels"}[side]
    candidates = [_format(metadata, side, key).get("num_channels")]
    if name in network.arguments:
        # An expression is no error: the network can be built without its channels.
        with suppress(WeightsError):
            candidates.insert(0, network.argument(name))
    whole = [n for n in candidates if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return whole[0] if whole else None


def _channels(
    metadata: Mapping[str, Any], side: str, key: str, count: int | None, notes: list[str]
) -> tuple[str, ...] | None:
    """The names of the channels of one side; None, and a note, where they are unclear."""
    where = f"network_data_format.{side}.{key}.channel_def"
    described = _format(metadata, side, key)
    given = described.get("channel_def", described.get("label_def"))
    if not isinstance(given, Mapping) or not given:
        notes.append(f"the metadata have no {where}, so channels have no names")
        return None
    named = {str(number): str(name).strip() for number, name in given.items()}
    names = [named.get(str(i), "") for i in range(len(named))]
    if side == "outputs":
        names = [BACKGROUND if name.casefold() == BACKGROUND else name for name in names]
    if not all(names) or len(set(names)) < len(names) or len(names) != (count or len(names)):
        shown = ", ".join(f"{k}: {v}" for k, v in named.items())[:_MAX_LENGTH]
        notes.append(f"{where} does not name each of {count or 'the'} channels once: {shown}")
        return None
    return tuple(names)


def _origin(root: Path, metadata: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    found = {
        {"data_source": "data"}.get(key, key): str(metadata[key])[:_MAX_LENGTH]
        for key in _ORIGIN_KEYS
        if isinstance(metadata.get(key), (str, int, float))
    }
    origin = {"format": "MONAI bundle"} | {"name": root.name} | found
    if licence := _licence(root, metadata):
        origin["licence"] = licence
    citation = metadata.get("references") or metadata.get("citation")
    if citation:
        parts = citation if isinstance(citation, list) else [citation]
        origin["citation"] = "; ".join(str(part)[:_MAX_LENGTH] for part in parts[:5])
    return origin | ({"notes": notes} if notes else {})


def _licence(root: Path, metadata: Mapping[str, Any]) -> str | None:
    """The licence's name from the metadata, else the first lines of its file."""
    for key in ("license", "licence"):
        if isinstance(metadata.get(key), str):
            return str(metadata[key])[:_MAX_LENGTH]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "docs/LICENSE"):
        if (root / name).is_file():
            with (root / name).open(encoding="utf-8", errors="replace") as file:
                start = file.read(2000)
            lines = [line.strip() for line in start.splitlines() if line.strip()]
            # MONAI's placeholder, until somebody chooses a licence.
            chosen = not lines or not lines[0].startswith("Select a license")
            told = lines[:1] if lines and lines[0].endswith(".") else lines[:2]
            return (", ".join(told)[:_MAX_LENGTH] or None) if chosen else None
    return None
