"""`--to bundle`: a MONAI bundle, of public classes of MONAI and torch where there are such."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from monai.bundle.config_parser import ConfigParser

from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    Preprocessing,
    ZScoreIntensity,
    steps_of,
)
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.bundle_configs import (
    SCHEMA,
    evaluation_config,
    inference_config,
    metadata,
    training_config,
)
from hsf_finetune.export.bundle_transforms import slides
from hsf_finetune.export.door import Door, read_labels, refuse_unlike, save_channels
from hsf_finetune.export.monai_networks import monai_definition
from hsf_finetune.export.onnx_graph import require_any_size
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.errors import ConfigError

SCHEMA_FILE = Path(__file__).parent / "monai_schema" / SCHEMA


def _check(model: TrainedModel) -> None:
    """Refuses what MONAI's transforms cannot do as this package does it: resampling above all."""
    how = model.card.preprocessing
    carried = {
        "orientation": (how.orientation,),
        "crop": ("none", "margins", "nonzero", "positive"),
        "crop_margin_vox": (0,) if how.crop == "margins" else (how.crop_margin_vox,),
        "crop_after": (how.crop_after,),
        "spacing_mm": (how.spacing_mm,) if how.resampling.startswith("monai") else (None,),
        "fill_values": ("outside", "kept"),
        "intensity_first": (True, False),
        "padding": ("both", "symmetric", "end"),
        "padding_mode": (how.padding_mode,),
        "multiple_vox": (how.multiple_vox,),
        "least_vox": (how.least_vox,),
        "padded_size": ("multiple", "window"),
        "intensity": (how.intensity,) if _has_step(how.intensity) else (),
    }
    refuse_unlike(model.card, "a MONAI bundle", carried)


def _has_step(intensity: Sequence[Intensity]) -> bool:
    """Whether `normalisation` has a transform of MONAI for each step, for all channels."""

    def is_public(step: Intensity) -> bool:
        mask = getattr(step, "mask", "whole")
        if isinstance(step, ZScoreIntensity):
            return mask != "nonzero_filled" and step.clip is None
        return mask == "whole"

    return len(intensity) == 1 and all(map(is_public, steps_of(intensity[0])))


def _write(model: TrainedModel, folder: Path) -> str:
    (folder / "models").mkdir()
    network = copy.deepcopy(model.anatomy.network).cpu().float().eval()
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save(tensors, folder / "models" / "model.pt")
    public = monai_definition(model.card.models) is not None
    if not public:
        size = [4 * n for n in model.anatomy.divisor]
        example = torch.zeros(1, model.card.in_channels, *size)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(network, example)
            require_any_size(
                model.anatomy, model.card, lambda image: traced(image).softmax(1), Preprocessing()
            )
            traced.save(folder / "models" / "model.ts")
    write_json(folder / "configs" / "metadata.json", metadata(model))
    write_json(folder / "configs" / "inference.json", inference_config(model))
    write_json(folder / "configs" / "evaluate.json", evaluation_config(model))
    write_json(folder / "configs" / "train.json", training_config(model))
    return _usage(model, public)


def _usage(model: TrainedModel, public: bool) -> str:
    scans = (
        "scans"
        if model.card.in_channels == 1
        else "scans (a folder for each, its channels by name)"
    )
    kind = "a class of MONAI" if public else "TorchScript, since MONAI has no such network"
    run = "python -m monai.bundle run --bundle_root ."
    both = "--config_file \"['configs/inference.json','configs/{}.json']\""
    return f"""In this folder, for {scans}:

```bash
pip install "monai[nibabel,ignite,fire]"
{run} --config_file configs/inference.json --dataset_dir SCANS --output_dir SEGMENTATIONS
{run} {both.format("evaluate")} --dataset_dir SCANS --label_dir LABELS
{run} {both.format("train")} --dataset_dir SCANS --label_dir LABELS --epochs 50
```

Segmentations have the label values below. Labels have the names of their scans. Training
leaves its weights in `models/fine_tuned.pt`. The network is {kind}. The entries of the
configurations have the names that MONAI Label looks for.

{_differences(model.card.preprocessing)}- MONAI sets the codes of sform and qform to 1."""


def _differences(how: Preprocessing) -> str:
    """What MONAI does otherwise than `predict`, as lines of Markdown."""
    found = ""
    if how.crop == "margins" or how.fill_values == "outside":
        found += (
            "- MONAI keeps empty margins, and fill values outside of the scan, which `predict` "
            "leaves out: give\n  it scans without them.\n"
        )
    if not slides(how):
        window = " x ".join(map(str, how.window_vox))
        found += f"- MONAI takes a scan in one piece, `predict` one larger than {window} voxels in windows.\n"
    return found


def _segment(model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> npt.NDArray[Any]:
    """By MONAI's own parser and transforms, from a file to a file."""
    _validate_metadata(folder)
    with tempfile.TemporaryDirectory(prefix="bundle-proof-") as temporary:
        paths = save_channels(channels, Path(temporary))
        parser = ConfigParser()
        parser.read_config(folder / "configs" / "inference.json")
        parser["bundle_root"] = str(folder)
        parser["output_dir"] = str(Path(temporary) / "out")
        parser["device"] = "cpu"
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
        data = parser.get_parsed_content("preprocessing")(
            {"image": paths if len(paths) > 1 else paths[0]}
        )
        with torch.inference_mode():
            inferer = parser.get_parsed_content("inferer")
            data["pred"] = inferer(data["image"][None], network)[0]
        parser.get_parsed_content("postprocessing")(data)
        (written,) = (Path(temporary) / "out").iterdir()
        return read_labels(written)


def _validate_metadata(folder: Path) -> None:
    """Refuses metadata that MONAI's `verify_metadata` would refuse.

    Raises:
        ConfigError: names what is wrong.
    """
    import jsonschema  # an extra

    found = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    try:
        jsonschema.validate(found, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    except jsonschema.ValidationError as error:
        raise ConfigError(
            "the bundle's metadata are not as MONAI wants them", found=error.message
        ) from error


DOOR = Door(
    "bundle",
    "MONAI",
    {"monai": "monai", "jsonschema": "jsonschema"},
    _check,
    _write,
    _segment,
    "monai",
)
