"""Which label belongs to which segmentation, in two folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef, is_volume, stem
from hsf_finetune.describe.layouts.base_layout import ListedVolume
from hsf_finetune.describe.pair_names import match_names
from hsf_finetune.inference.formats.output_formats import PROBABILITY_ENDS
from hsf_finetune.system.console import count_of, say, shorten_list
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.missing_paths import no_such_path
from hsf_finetune.system.walk_folder import paths_below

Volumes = dict[str, ListedVolume]
"""Path below a folder, without suffix -> volume."""


def pair_files(prediction: Path, label: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> segmentation and label; of two folders by path, else as `match_names` says.

    Raises:
        DataError: a file of either folder has no partner, or several.
    """
    for path in (prediction, label):
        if not path.exists():
            raise no_such_path(DataError, path)
    if prediction.is_file() and label.is_file():
        return {stem(prediction): (prediction, label)}
    if prediction.is_file() or label.is_file():
        raise DataError("one is a file and the other a folder", file=prediction, found=label)
    predictions, labels = _volumes_by_name(prediction), _volumes_by_name(label)
    pairs = {name: name for name in predictions if name in labels}
    more = _match(
        {name: volume for name, volume in predictions.items() if name not in pairs},
        {name: volume for name, volume in labels.items() if name not in pairs},
        prediction,
    )
    pairs |= more
    missing = sorted(predictions.keys() - pairs.keys())
    unpredicted = sorted(labels.keys() - {*pairs.values()})
    if missing or unpredicted or not predictions:
        raise DataError(
            "predictions and labels do not pair by file name",
            file=prediction,
            found=f"{len(predictions)} predictions, {len(labels)} labels\n"
            f"without a label: {', '.join(missing[:6]) or 'none'}\n"
            f"without a prediction: {', '.join(unpredicted[:6]) or 'none'}",
            fix="leave the same files in both folders; a case without a prediction is not "
            "dropped from the mean silently",
        )
    if more:
        say(f"paired: {shorten_list([f'{name} with {other}' for name, other in more.items()])}")
    return {
        name: (predictions[name].ref.path, labels[pairs[name]].ref.path) for name in sorted(pairs)
    }


def _match(predictions: Volumes, labels: Volumes, folder: Path) -> dict[str, str]:
    """Name of a prediction -> name of its label, for those whose names differ."""
    name_of = {volume: name for name, volume in predictions.items()}
    found = {
        name: [name_of[image] for image in match_names(volume, [*predictions.values()])]
        for name, volume in labels.items()
    }
    users = Counter(prediction for matches in found.values() for prediction in matches)
    unclear = [
        f"{name}: {', '.join(matches)}"
        for name, matches in found.items()
        if len(matches) > 1 or any(users[prediction] > 1 for prediction in matches)
    ]
    if unclear:
        raise DataError(
            "names do not tell which prediction belongs to which label",
            file=folder,
            found="\n".join(unclear[:8]),
            expected="one prediction for each label",
            fix="give each prediction the name of its label, or leave one of the candidates",
        )
    return {matches[0]: name for name, matches in found.items() if matches}


def _volumes_by_name(folder: Path) -> Volumes:
    """The volumes of a folder by their path in it, without suffix; probabilities are none."""
    found: Volumes = {}
    paths = list(filter(is_volume, paths_below(folder)))
    volumes = [path for path in paths if not path.name.endswith(PROBABILITY_ENDS)]
    if left := len(paths) - len(volumes):
        say(f"left out: {count_of(left, 'file')} of probabilities in {folder}")
    for path in volumes:
        folders = path.parent.relative_to(folder).parts
        name = "/".join((*folders, stem(path)))
        if name in found:
            raise DataError(
                "two files differ in their suffix only",
                file=path,
                found=found[name].ref.path.name,
                fix="leave one of them",
            )
        found[name] = ListedVolume(VolumeRef(path), folders, stem(path))
    return found
