"""Weights of other programs and networks: the same function, or a refusal that names the setting."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from omegaconf import OmegaConf
from torch import nn

from field.workbench import FAST, Answer, Attempt, Workbench, judge, kind, run_command

NOT_OF_NETWORK = FAST[5:]
SEGRESNET = {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 3, "blocks_down": (1, 2, 2), "blocks_up": (1, 1), "norm": ("group", {"num_groups": 8})}  # fmt: skip
SWIN = {"in_channels": 1, "out_channels": 3, "feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "window_size": 3}  # fmt: skip
DYN = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [8, 8, 16]}  # fmt: skip
BASIC = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": (4, 4, 8, 8, 8, 4)}
PLAIN = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": (4, 8, 8), "strides": (2, 2), "num_res_units": 2, "norm": ("instance", {"affine": True})}  # fmt: skip
CHANGES: tuple[tuple[str, type[nn.Module], dict[str, Any], tuple[str, ...], dict[str, Any]], ...] = (
    ("segresnet", SegResNet, SEGRESNET, ("models.init_filters=8", "models.blocks_down=[1,2,2]", "models.blocks_up=[1,1]"), {"upsample_mode": "deconv"}),
    ("segresnet", SegResNet, SEGRESNET, ("models.init_filters=8", "models.blocks_down=[1,2,2]", "models.blocks_up=[1,1]"), {"blocks_down": (1, 1, 2)}),
    ("segresnet", SegResNet, SEGRESNET, ("models.init_filters=8", "models.blocks_down=[1,2,2]", "models.blocks_up=[1,1]"), {"blocks_down": (1, 2, 2, 2), "blocks_up": (1, 1, 1)}),
    ("segresnet", SegResNet, SEGRESNET, ("models.init_filters=8", "models.blocks_down=[1,2,2]", "models.blocks_up=[1,1]"), {"init_filters": 16}),
    ("segresnet", SegResNet, SEGRESNET, ("models.init_filters=8", "models.blocks_down=[1,2,2]", "models.blocks_up=[1,1]"), {"blocks_up": (1, 2)}),
    ("swinunetr", SwinUNETR, SWIN, ("models.feature_size=12", "models.depths=[1,1,1,1]", "models.num_heads=[1,2,2,2]", "models.window_size=3"), {"depths": (1, 1, 2, 1)}),
    ("swinunetr", SwinUNETR, SWIN, ("models.feature_size=12", "models.depths=[1,1,1,1]", "models.num_heads=[1,2,2,2]", "models.window_size=3"), {"use_v2": True}),
    ("swinunetr", SwinUNETR, SWIN, ("models.feature_size=12", "models.depths=[1,1,1,1]", "models.num_heads=[1,2,2,2]", "models.window_size=3"), {"num_heads": (2, 2, 2, 2)}),
    ("dynunet", DynUNet, DYN, ("models.channels=[8,8,16]",), {"kernel_size": [3, [1, 3, 3], 3]}),
    ("dynunet", DynUNet, DYN, ("models.channels=[8,8,16]",), {"strides": [1, 2, [2, 2, 1]], "upsample_kernel_size": [2, [2, 2, 1]]}),
    ("dynunet", DynUNet, DYN, ("models.channels=[8,8,16]",), {"res_block": True}),
    ("basicunet", BasicUNet, BASIC, ("models.features=[4,4,8,8,8,4]",), {"upsample": "nontrainable"}),
    ("monai_unet", UNet, PLAIN, ("models.channels=[4,8,8]", "models.strides=[2,2]"), {"num_res_units": 1}),
    ("monai_unet", UNet, PLAIN, ("models.channels=[4,8,8]", "models.strides=[2,2]"), {"kernel_size": 5}),
)  # fmt: skip


def plan(bench: Workbench, weights: Path, *overrides: str) -> Answer:
    """The answer of `plan` with these weights, on a cohort of its own."""
    data = bench.cohort(3)
    given = [o for o in bench.overrides(data) if o not in FAST] + [*NOT_OF_NETWORK, *overrides]
    return run_command("plan", *given, f"finetuning.pretrained={weights}")


@kind("weights of another structure")
def structures(bench: Workbench) -> Iterator[Attempt]:
    """A network by hand is refused; `models=pretrained` builds the right one, or says why not."""
    for name, network, settings, given, change in CHANGES:
        file = bench.folder() / "plain.pt"
        torch.manual_seed(0)
        torch.save(network(**settings).state_dict(), file)
        answer = plan(bench, file, f"models={name}", *given)
        yield judge(f"{name} as it is", answer, answer.code == 0)
        torch.save(network(**{**settings, **change}).state_dict(), file)
        answer = plan(bench, file, f"models={name}", *given)
        yield judge(f"{name} with {change}", answer, answer.code == 2)
        answer = plan(bench, file, "models=pretrained")
        yield judge(f"pretrained, {name} with {change}", answer, answer.code == 0)


WRAPPERS: dict[str, Callable[[str], str]] = {
    "module": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "several": lambda name: f"net.module._orig_mod.{name}",
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}",
    "inside": lambda name: ".".join(w for part in name.split(".") for w in (part, "_checkpoint_wrapped_module"))[: -len("._checkpoint_wrapped_module")],
    "compiled inside": lambda name: name.replace("trunk.", "trunk._orig_mod.", 1),
    "of our own": lambda name: f"network.{name}",
    "Lightning": lambda name: f"model.{name}",
}  # fmt: skip


@kind("names with words of wrappers")
def wrappers(bench: Workbench) -> Iterator[Attempt]:
    content = torch.load(bench.model / "checkpoints" / "best.ckpt", weights_only=True)
    state = {k.removeprefix("network."): v for k, v in content["state_dict"].items()}
    for name, wrap in WRAPPERS.items():
        file = bench.folder() / "wrapped.pt"
        torch.save({"state_dict": {wrap(k): v for k, v in state.items()}}, file)
        answer = plan(bench, file, *FAST[:5])
        yield judge(name, answer, answer.code == 0 and answer.says("100.0% of the parameters"))
    file = bench.folder() / "without_names.pt"
    torch.save(state, file)
    data = bench.cohort(4)
    given = bench.overrides(data, f"finetuning.pretrained={file}", "lightning.max_epochs=1")
    answer = run_command("finetune", *given)
    yield judge("without class names, as many outputs", answer, answer.code == 0)


@kind("files of other forms")
def forms(bench: Workbench) -> Iterator[Attempt]:
    content = torch.load(bench.model / "checkpoints" / "best.ckpt", weights_only=True)
    state = {k.removeprefix("network."): v for k, v in content["state_dict"].items()}
    names = list(state)

    def tried(name: str, file: Path, words: Sequence[str] | None) -> Attempt:
        answer = plan(bench, file, *FAST[:5])
        right = answer.code == 0 if words is None else answer.code == 2 and answer.says(*words)
        return judge(name, answer, right)

    folder = bench.folder()
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for part, chosen in parts.items():
        safetensors.torch.save_file({k: state[k].clone() for k in chosen}, folder / part)
    index = {"weight_map": {k: part for part, chosen in parts.items() for k in chosen}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    yield tried("shards, by their index", folder / "model.safetensors.index.json", None)
    yield tried("shards, by their folder", folder, None)
    config = OmegaConf.create({"a": {"b": [1, 2]}})
    file = bench.folder() / "lightning.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": config, "callbacks": {}}, file)
    yield tried("OmegaConf in a checkpoint", file, None)
    folder = bench.folder()
    (folder / ".metadata").write_bytes(b"\x80\x04.")
    (folder / "__0_0.distcp").write_bytes(b"x" * 100)
    yield tried("a folder of DCP", folder, ["dcp_to_torch"])
    for name, start, words in (
        ("saved_model.pb", b"\x08\x01\x12\x04", ["TensorFlow"]),
        ("model_final_checkpoint.model.pkl", pickle.dumps({"init": (), "name": "x"}), ["nnU-Net"]),
        ("model.tflite", b"\x1c\0\0\0TFL3", ["TensorFlow Lite"]),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", ["ONNX"]),
        ("model.h5", b"\x89HDF\r\n\x1a\n", ["Keras"]),
    ):
        file = bench.folder() / name
        file.write_bytes(start + bytes(200))
        yield tried(name, file, words)
