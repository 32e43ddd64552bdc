"""Files of pretrained weights, each written by the library that writes such files."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import safetensors.torch
import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from torch import nn

from tests.networks.architectures.test_arunet import FOLDER as HSF
from tests.networks.architectures.test_arunet import original
from tests.weights.bundles import METADATA, NETWORKS, bundle, monai_network
from tests.weights.sources.nnunet_v1_model import write_model
from tests.weights.sources.test_nnssl_file import _file as nnssl_file

STORED = Path(__file__).parents[1]
NNUNET = Path(__file__).parent / "stored" / "nnunet"
NAMED = "finetuning.source_classes=[background, anterior, posterior]"
SPLIT_BLOB = "finetuning.derive_from={anterior: blob, posterior: blob}"
PRETRAINED = ("models=pretrained",)
NO_NORM = (*PRETRAINED, "finetuning.input_channels={T2w: noNorm}")
ENCODER = (*PRETRAINED, "weights.load=encoder")
UNET = (
    *("models=monai_unet", "models.channels=[4,8,8]", "models.strides=[2,2]"),
    *("models.num_res_units=2", "models.norm=instance_plain"),
)
SEGRESNET = (
    *("models=segresnet", "models.init_filters=8"),
    *("models.blocks_down=[1,1]", "models.blocks_up=[1]"),
)
DYNUNET = ("models=dynunet", "models.channels=[4,6,8]")


@dataclass(frozen=True)
class Format:
    """A row of the table: a file, and the run that takes it.

    Args:
        file: what wrote it, as the page says.
        network: whose weights they are, as the page says.
        write: writes it into a folder, and returns what `finetuning.pretrained` is given;
            None is the run folder of a model of ours.
        overrides: the network, and what else belongs on the command line.
        channels: input channels of the run: T2w, or T1w and T2w.
        marks: when to skip it.
    """

    file: str
    network: str
    write: Callable[[Path], Path] | None
    overrides: tuple[str, ...] = PRETRAINED
    channels: int = 1
    marks: tuple[pytest.MarkDecorator, ...] = ()

    @property
    def name(self) -> str:
        """What the test is called."""
        return re.sub(r"\W+", "_", f"{self.file} {self.network}")


class Segmenter(L.LightningModule):
    """Somebody else's module, with the network under `model`."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = unet(channels)

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        logits: torch.Tensor = self.model(batch[0])
        return logits.square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def unet(width: int = 4, out_channels: int = 3) -> nn.Module:
    return UNet(3, 1, out_channels, (width, 8, 8), (2, 2), num_res_units=2)


def segresnet(out_channels: int = 3) -> nn.Module:
    return SegResNet(3, 8, 1, out_channels, blocks_down=(1, 1), blocks_up=(1,))


def dynunet(out_channels: int = 3) -> nn.Module:
    return DynUNet(3, 1, out_channels, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 6, 8])


# ------------------------------------------------------------------ how they are written
def lightning_checkpoint(folder: Path) -> Path:
    """After a step of training by Lightning."""
    images = torch.utils.data.TensorDataset(torch.randn(1, 1, 8, 8, 8))
    trainer = L.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Segmenter(), torch.utils.data.DataLoader(images))
    trainer.save_checkpoint(folder / "somebody.ckpt")
    return folder / "somebody.ckpt"


def state_dict(network: Callable[[], nn.Module]) -> Callable[[Path], Path]:
    """By torch.save(network.state_dict())."""

    def write(folder: Path) -> Path:
        torch.save(network().state_dict(), folder / "weights.pt")
        return folder / "weights.pt"

    return write


def training_state(folder: Path) -> Path:
    """Weights of several GPUs beside the optimiser's state, as training scripts save them."""
    network = segresnet()
    optimizer = torch.optim.AdamW(network.parameters())
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}, folder / "a.pth")
    return folder / "a.pth"


def safetensors_file(network: Callable[[], nn.Module]) -> Callable[[Path], Path]:
    """By the safetensors library, which writes a tensor of several names once."""

    def write(folder: Path) -> Path:
        safetensors.torch.save_model(network(), str(folder / "model.safetensors"))
        return folder / "model.safetensors"

    return write


def monai_bundle(
    network: str, zipped: bool = False, sigmoid: bool = False
) -> Callable[[Path], Path]:
    """By monai.bundle, with classes and channels of the table's cohort."""

    def write(folder: Path) -> Path:
        metadata: dict[str, Any] = copy.deepcopy(METADATA)
        formats: Mapping[str, Any] = metadata["network_data_format"]
        formats["inputs"]["image"]["channel_def"] = {"0": "T1w", "1": "T2w"}
        classes = {"0": "Background", "1": "anterior", "2": "posterior"}
        formats["outputs"]["pred"]["channel_def"] = classes
        steps = None
        if sigmoid:
            classes["0"] = "whole"
            after = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
            steps = {"postprocessing": {"_target_": "Compose", "transforms": [after]}}
        made = bundle(
            folder / "made", NETWORKS[network], monai_network(NETWORKS[network]), metadata, steps
        )
        return Path(shutil.make_archive(str(folder / "made"), "zip", made)) if zipped else made

    return write


def nnunet(kind: str) -> Callable[[Path], Path]:
    """By nnunetv2: stored/make_nnunet.py."""
    return lambda folder: next((NNUNET / kind).glob("nnUNetTrainer__*"))


def packed(kind: str, form: str) -> Callable[[Path], Path]:
    """A results folder in an archive."""

    def write(folder: Path) -> Path:
        found = nnunet(kind)(folder)
        return Path(shutil.make_archive(str(folder / "made"), form, found.parent, found.name))

    return write


def checkpoint_alone(folder: Path) -> Path:
    """Of a results folder, by nnunetv2."""
    return Path(shutil.copy(nnunet("residual")(folder) / "fold_0" / "checkpoint_final.pth", folder))


def regions(folder: Path) -> Path:
    """A results folder whose outputs are regions that overlap."""
    found = nnunet("plain")(folder)
    made = Path(shutil.copytree(found, folder / found.name))
    described = json.loads((found / "dataset.json").read_text())
    described["labels"] = {"background": 0, "whole": [1, 2], "anterior": 1, "posterior": 2}
    described["regions_class_order"] = [1, 1, 2]
    (made / "dataset.json").write_text(json.dumps(described))
    return made


def nnunet_v1(folder: Path) -> Path:
    """In the form of nnU-Net v1, in an archive."""
    write_model(folder / "nnUNetTrainerV2__nnUNetPlansv2.1")
    return Path(shutil.make_archive(str(folder / "made"), "tar", folder))


FORMATS = (
    Format("run of this package", "UNet", None, (*PRETRAINED, SPLIT_BLOB)),
    Format(
        "run of version 0.1.0",
        "UNet",
        lambda folder: STORED / "stored_runs" / "v0_1_0" / "source",
        (*PRETRAINED, SPLIT_BLOB),
    ),
    Format("Lightning", "MONAI UNet", lightning_checkpoint, (*UNET, NAMED)),
    Format("PyTorch state dict", "MONAI DynUNet", state_dict(dynunet), (*PRETRAINED, NAMED)),
    Format(
        "PyTorch state dict",
        "MONAI DynUNet, ours with deep supervision",
        state_dict(dynunet),
        (*DYNUNET, "models.deep_supervision=true", "models.deep_supr_num=1", NAMED),
    ),
    Format(
        "PyTorch state dict",
        "MONAI DynUNet of 5 unnamed classes",
        state_dict(lambda: dynunet(5)),
        DYNUNET,
    ),
    Format(
        "PyTorch state dict",
        "MONAI UNet, whose first level is wider than ours",
        state_dict(lambda: unet(6)),
        (*UNET, NAMED, "finetuning.min_loaded=0.1"),
    ),
    Format("PyTorch, several GPUs", "MONAI SegResNet", training_state, (*SEGRESNET, NAMED)),
    Format(
        "safetensors", "MONAI SegResNet, 3 unnamed classes", safetensors_file(segresnet), SEGRESNET
    ),
    Format(
        "safetensors",
        "MONAI SegResNet of T2w, ours of T1w and T2w",
        safetensors_file(segresnet),
        (
            *SEGRESNET,
            NAMED,
            "finetuning.source_channels=[T2w]",
            "finetuning.input_channels=zero",
        ),
        channels=2,
    ),
    Format(
        "safetensors",
        "MONAI SwinUNETR",
        safetensors_file(lambda: SwinUNETR(1, 3, feature_size=12, window_size=3)),
        (*PRETRAINED, NAMED),
    ),
    *(
        Format("MONAI bundle", network, monai_bundle(key), channels=2)
        for key, network in (
            ("unet", "UNet"),
            ("basicunet group", "BasicUNet"),
            ("dynunet", "DynUNet, deep supervision"),
            ("segresnet", "SegResNet"),
            ("swinunetr v2", "SwinUNETR V2"),
        )
    ),
    Format("MONAI bundle, zip", "UNet", monai_bundle("unet plain", zipped=True), channels=2),
    Format(
        "MONAI bundle of sigmoid outputs",
        "SegResNet",
        monai_bundle("segresnet", sigmoid=True),
        channels=2,
    ),
    Format(
        "nnU-Net v2",
        "PlainConvUNet",
        nnunet("plain"),
        NO_NORM,
        channels=2,
    ),
    Format(
        "nnU-Net v2",
        "ResidualEncoderUNet",
        nnunet("residual"),
        NO_NORM,
        channels=2,
    ),
    Format("nnU-Net v2, tar.gz", "PlainConvUNet", packed("plain", "gztar"), NO_NORM, channels=2),
    Format(
        *("nnU-Net v2, checkpoint alone", "ResidualEncoderUNet", checkpoint_alone, NO_NORM),
        channels=2,
    ),
    Format("nnU-Net v2 of regions", "PlainConvUNet", regions, NO_NORM, channels=2),
    Format(
        "nnU-Net v1, tar",
        "Generic_UNet",
        nnunet_v1,
        (*PRETRAINED, NAMED, "finetuning.input_channels=mean"),
        channels=2,
    ),
    Format(
        "nnssl",
        "ResidualEncoderUNet",
        lambda folder: nnssl_file(folder / "made.pth", "ResidualEncoderUNet"),
        ENCODER,
    ),
    Format(
        "nnssl",
        "Primus",
        lambda folder: STORED / "weights" / "stored" / "published" / "primus.pt",
        ENCODER,
    ),
    Format(
        "HSF (Lightning)",
        "ARUNet, 6 classes",
        lambda folder: HSF / "arunet8_perturbed.ckpt",
        (
            *PRETRAINED,
            "finetuning.source_classes=[background, DG, CA1, CA2, CA3, SUB]",
            "finetuning.derive_from={anterior: [DG, CA1], posterior: SUB}",
        ),
        marks=(original,),
    ),
)
