"""Makes tests/weights/stored/published: files in the layout of published weights, and their logits.

Run once, with a folder that holds the networks' own sources, each of one file:

    python tests/weights/stored/make_published.py FOLDER [NAME ...]

| file | from |
|---|---|
| STUNet.py | github.com/uni-medical/STU-Net 0652eaf, nnUNet-1.7.1/nnunet/network_architecture |
| unet3d.py | github.com/MrGiovanni/SuPreM 76e1a64, target_applications/totalsegmentator/model |
| network.py | github.com/neel-dey/anatomix a29b8a8, anatomix/model |
| rsunet.py | github.com/PytorchConnectomics/pytorch_connectomics 4335a8b, connectomics/models/architectures |

Primus comes from the library dynamic_network_architectures 0.4.4 itself, in a file as nnssl writes it
(github.com/MIC-DKFZ/nnssl 7044864). The networks are as published, with fewer channels and random weights.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent / "published"


def module(path: Path, replaced: dict[str, str] | None = None, **stubs: Any) -> dict[str, Any]:
    """The names that a source defines, without the packages that it imports from."""
    text = path.read_text(encoding="utf-8")
    for pattern, other in {r"(?m)^from (nnunet|\.)\S* import .*$": "", **(replaced or {})}.items():
        text = re.sub(pattern, other, text)
    made = types.ModuleType(path.stem)
    made.__dict__.update(stubs)
    sys.modules[path.stem] = made
    exec(compile(text, str(path), "exec"), made.__dict__)
    return made.__dict__


def randomise(network: nn.Module) -> nn.Module:
    """Every tensor, statistics included, away from how it starts."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("up.weight"):
                tensor.add_(0.1 * torch.rand_like(tensor))
    return network.eval()


@torch.no_grad()
def save(name: str, network: nn.Module, state: dict[str, Any], side: int, **head: Any) -> None:
    """The file in the published layout, and beside it an image and what the network makes of it."""
    image = torch.randn(1, 1, side, side, 2 * side)
    torch.save(state, HERE / f"{name}.pt")
    torch.save({"image": image, "output": network(image), **head}, HERE / f"{name}_output.pt")


def stunet(folder: Path) -> None:
    """As nnU-Net v1 saves it, with heads of all levels."""
    names = module(
        folder / "STUNet.py",
        InitWeights_He=lambda slope: lambda layer: None,
        SegmentationNetwork=nn.Module,
    )
    sizes = {"pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2]], "conv_kernel_sizes": [[3, 3, 3]] * 3}
    network = randomise(names["STUNet"](1, 3, depth=[1, 2, 1], dims=[2, 4, 4], **sizes))
    network._deep_supervision = False
    state = {"epoch": 4000, "state_dict": network.state_dict(), "optimizer_state_dict": None}
    save("stunet", network, state, 8)


def suprem_unet(folder: Path) -> None:
    """As SuPreM saves it: a backbone without a head, beside what finds organs by text."""
    smaller = {rf"\b{n}\b": str(n // 16) for n in (32, 64, 128, 256, 512)}
    network = randomise(module(folder / "unet3d.py", smaller)["UNet3D"](n_class=3))
    state = {
        f"module.backbone.{name}": tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("out_tr.")
    }
    state |= {"module.precls_conv.2.weight": torch.ones(8, 4, 1, 1, 1)}
    state |= {"module.organ_embedding": torch.ones(3, 512), "module.GAP.0.bias": torch.ones(32)}
    head = network.out_tr.final_conv.state_dict()
    save("suprem_unet", network, {"net": state, "epoch": 800}, 16, head=head)


def anatomix(folder: Path) -> None:
    """A trunk that ends in features, as it is."""
    kinds: dict[str, dict[str, Any]] = {
        "anatomix": {},
        "anatomix_dev": {
            **{"norm": "instance", "pooling": "Avg", "interp": "trilinear", "norm_eps": 1e-2}
        },
    }
    make = module(folder / "network.py")["Unet"]
    for name, more in kinds.items():
        network = randomise(make(dimension=3, input_nc=1, output_nc=3, num_downs=2, ngf=2, **more))
        save(name, network, network.state_dict(), 8)


def rsunet(folder: Path) -> None:
    """As PyTorch Connectomics' Lightning module saves it."""
    names = module(
        folder / "rsunet.py",
        ConnectomicsModel=nn.Module,
        register_architecture=lambda name: lambda build: build,
    )
    factors = [(1, 2, 2), (2, 2, 2)]
    network = randomise(names["RSUNet"](1, 3, width=[2, 4, 4], down_factors=factors))
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    save("rsunet", network, {"state_dict": state, "pytorch-lightning_version": "2.5.0"}, 8)


def primus(folder: Path) -> None:
    """As nnssl saves a masked autoencoder: a second transformer, and what else is left over."""
    # Where torchvision is of another build than torch, its operators are missing; none is used.
    missing = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        missing.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from dynamic_network_architectures.architectures.primus import Primus

    size = (16, 16, 32)
    sizes = {"input_shape": size, "eva_depth": 4, "eva_numheads": 6}
    network = Primus(1, 36, (8, 8, 8), 1, init_values=0.1, scale_attn_inner=True, **sizes)
    state = {**randomise(network).state_dict(), "mask_token": torch.ones(1, 1, 36)}
    state |= {"decoder.blocks.0.gamma_1": torch.ones(36), "decoder.norm.bias": torch.ones(36)}
    configuration = {
        "spacing": [1, 1, 1],
        "patch_size": list(size),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
    }
    plan = {
        "architecture_plans": {"arch_class_name": "PrimusS", "arch_kwargs": None},
        "pretrain_plan": {
            "dataset_name": "Dataset745_OpenMind",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "configurations": {"onemmiso": configuration},
        },
        "pretrain_num_input_channels": 1,
        "key_to_encoder": "eva",
        "key_to_stem": "down_projection",
        "keys_to_in_proj": ["down_projection.proj"],
        "key_to_lpe": "eva.pos_embed",
    }
    papers = [{"type": "Architecture", "name": "Primus", "apa_citations": ["Wald et al. (2025)."]}]
    content = {"network_weights": state, "nnssl_adaptation_plan": plan, "citations": papers}
    save("primus", network, content, 16)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for make in (stunet, suprem_unet, anatomix, rsunet, primus):
        if make.__name__ in sys.argv[2:] or not sys.argv[2:]:
            torch.manual_seed(0)
            make(Path(sys.argv[1]))
