"""Transfer on every network: exact where it claims to be, untouched where it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hsf_finetune.errors import ConfigError, WeightsError
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import BUILDERS, build, class_axes
from hsf_finetune.settings import (
    ARUNetHparams,
    ARUNetSettings,
    DynUNetSettings,
    NetworkSettings,
    SegResNetSettings,
    UNetSettings,
)
from hsf_finetune.weights.receipt import Receipt
from hsf_finetune.weights.sources import Checkpoint, read_checkpoint
from hsf_finetune.weights.transfer import transfer

SETTINGS: list[NetworkSettings] = [
    UNetSettings(channels=[4, 8, 8], strides=[2, 2], features=4, norm="batch"),
    DynUNetSettings(channels=[4, 8, 8]),
    SegResNetSettings(init_filters=4, blocks_down=[1, 1, 1], blocks_up=[1, 1]),
    ARUNetSettings(hparams=ARUNetHparams(f_maps=4, num_levels=3)),
]
SOURCE = ("background", "A", "B", "C")
IMAGE = torch.randn(1, 1, 8, 8, 16, generator=torch.Generator().manual_seed(0))
every_network = pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)


def _network(settings: NetworkSettings, channels: int, seed: int, in_channels: int = 1) -> Anatomy:
    """A network whose every tensor, norms and statistics included, is random."""
    torch.manual_seed(seed)
    anatomy = build(settings, in_channels, channels)
    with torch.no_grad():
        for name, tensor in anatomy.network.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
            else:
                assert name.endswith("num_batches_tracked")
                tensor.fill_(7)
    anatomy.network.eval()
    return anatomy


def _saved(path: Path, anatomy: Anatomy, classes: Sequence[str], **remarks: object) -> Checkpoint:
    state = {f"network.{k}": v for k, v in anatomy.network.state_dict().items()}
    remarks = {"format": 1, "classes": list(classes)} | remarks
    torch.save({"state_dict": state, "hsf_finetune": remarks}, path / "source.ckpt")
    return read_checkpoint(path / "source.ckpt")


def _fresh(settings: NetworkSettings, classes: Sequence[str], in_channels: int = 1) -> Anatomy:
    return _network(settings, len(classes), seed=99, in_channels=in_channels)


def _load(
    settings: NetworkSettings,
    anatomy: Anatomy,
    checkpoint: Checkpoint,
    classes: Sequence[str],
    derive_from: dict[str, str | list[str]] | None = None,
    min_loaded: float = 0.9,
) -> Receipt:
    axes = class_axes(settings, 1, len(classes))
    return transfer(anatomy, checkpoint, classes, derive_from, min_loaded, axes)


@torch.no_grad()
def _moved(
    path: Path,
    settings: NetworkSettings,
    classes: Sequence[str],
    derive_from: dict[str, str | list[str]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Receipt]:
    """Logits of the source and of the network it was transferred to, in double."""
    source, target = _network(settings, len(SOURCE), seed=1), _fresh(settings, classes)
    receipt = _load(settings, target, _saved(path, source, SOURCE), classes, derive_from)
    image = IMAGE.double()
    before = source.network.double()(image)
    return before, target.network.double()(image), receipt


def _same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_every_network_is_tested() -> None:
    assert {settings.name for settings in SETTINGS} == set(BUILDERS)


@every_network
def test_same_classes_load_everything(tmp_path: Path, settings: NetworkSettings) -> None:
    before, after, receipt = _moved(tmp_path, settings, SOURCE)
    assert torch.equal(before, after)
    assert {entry.status for entry in receipt.entries} == {"loaded"}
    assert receipt.share_tensors == receipt.share_parameters == 1
    assert not receipt.unused
    assert not receipt.dropped


@every_network
def test_permuted_classes_give_permuted_logits(tmp_path: Path, settings: NetworkSettings) -> None:
    classes = ("background", "C", "A", "B")
    before, after, receipt = _moved(tmp_path, settings, classes)
    _same(after, before[:, [0, 3, 1, 2]])
    assert {e.status for e in receipt.entries if not e.trunk} == {"remapped"}


@every_network
def test_split_leaves_every_probability(tmp_path: Path, settings: NetworkSettings) -> None:
    classes = ("background", "front", "B", "A", "C", "back")
    before, after, _ = _moved(tmp_path, settings, classes, {"front": "A", "back": "A"})
    p, q = before.softmax(1), after.softmax(1)
    _same(q[:, [1, 3, 5]].sum(1), p[:, 1])
    _same(q[:, [0, 2, 4]], p[:, [0, 2, 3]])
    _same(q[:, 1], q[:, 5])


@every_network
def test_new_classes_come_out_of_the_background(tmp_path: Path, settings: NetworkSettings) -> None:
    classes = ("background", "A", "new", "B", "C", "newer")
    before, after, receipt = _moved(tmp_path, settings, classes)
    p, q = before.softmax(1), after.softmax(1)
    _same(q[:, [0, 2, 5]].sum(1), p[:, 0])
    _same(q[:, [1, 3, 4]], p[:, 1:])
    assert [r.rule for r in receipt.channels if r.target.startswith("new")] == [
        "from background"
    ] * 2


@every_network
def test_merged_channel_is_the_mean_logit_and_log_two(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    classes = ("background", "A or B", "C")
    before, after, receipt = _moved(tmp_path, settings, classes, {"A or B": ["A", "B"]})
    _same(after[:, 1], before[:, 1:3].mean(1) + torch.tensor(2.0).log())
    _same(after[:, [0, 2]], before[:, [0, 3]])
    assert receipt.channels[1].rule == "merged"


def test_dropped_classes_are_listed(tmp_path: Path) -> None:
    _, _, receipt = _moved(tmp_path, SETTINGS[0], ("background", "B"))
    assert receipt.dropped == ("A", "C")


def test_every_tensor_lands_once_and_buffers_too(tmp_path: Path) -> None:
    for settings in SETTINGS:
        source, target = _network(settings, 4, seed=1), _fresh(settings, SOURCE)
        receipt = _load(settings, target, _saved(tmp_path, source, SOURCE), SOURCE)
        distinct = {id(t) for t in target.network.state_dict(keep_vars=True).values()}
        assert len({entry.name for entry in receipt.entries}) == len(receipt.entries)
        assert len(receipt.entries) == len(distinct)
        there = source.network.state_dict()
        for name, tensor in target.network.state_dict().items():
            assert torch.equal(tensor, there[name])


@every_network
def test_too_little_in_common_changes_nothing(tmp_path: Path, settings: NetworkSettings) -> None:
    other = next(s for s in SETTINGS if s.name != settings.name)
    checkpoint = _saved(tmp_path, _network(other, 4, seed=1), SOURCE)
    target = _fresh(settings, SOURCE)
    before = {k: v.clone() for k, v in target.network.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"(?s)does not fit.*0% of the trunk's tensors"
    ) as caught:
        _load(settings, target, checkpoint, SOURCE)
    assert "finetuning.min_loaded=" not in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in target.network.state_dict().items())


def test_wrong_width_lists_mismatches_and_the_overrides_to_use(tmp_path: Path) -> None:
    wide = UNetSettings(channels=[4, 8, 16], strides=[2, 2], features=4, norm="batch")
    remarks = {"models": wide.model_dump(mode="json"), "in_channels": 1}
    checkpoint = _saved(tmp_path, _network(wide, 4, seed=1), SOURCE, **remarks)
    with pytest.raises(WeightsError) as caught:
        _load(SETTINGS[0], _fresh(SETTINGS[0], SOURCE), checkpoint, SOURCE)
    message = str(caught.value)
    assert "(16, 8, 3, 3, 3) in the checkpoint, (8, 8, 3, 3, 3) here" in message
    assert "models=unet models.channels=[4,8,16] models.strides=[2,2]" in message
    assert "input channels: 1" in message
    assert "lr" not in message
    assert "... and" in message


def test_most_tensors_are_not_enough_where_most_parameters_are_missing(tmp_path: Path) -> None:
    shallow = UNetSettings(channels=[4, 8, 64], strides=[2, 2], features=4, norm="batch")
    checkpoint = _saved(tmp_path, _network(shallow, 4, seed=1), SOURCE)
    with pytest.raises(WeightsError, match="of its parameters fit"):
        _load(SETTINGS[0], _fresh(SETTINGS[0], SOURCE), checkpoint, SOURCE, min_loaded=0.6)


def test_the_share_that_is_offered_would_be_accepted(tmp_path: Path) -> None:
    thin = UNetSettings(channels=[4, 8, 8], strides=[2, 2], features=4, norm="instance")
    checkpoint = _saved(tmp_path, _network(thin, 4, seed=1), SOURCE)
    with pytest.raises(WeightsError, match="not in the checkpoint") as caught:
        _load(SETTINGS[0], _fresh(SETTINGS[0], SOURCE), checkpoint, SOURCE)
    offered = float(str(caught.value).rpartition("finetuning.min_loaded=")[2])
    assert _load(SETTINGS[0], _fresh(SETTINGS[0], SOURCE), checkpoint, SOURCE, None, offered)


@every_network
def test_other_input_channels_are_refused_tensors(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    checkpoint = _saved(tmp_path, _network(settings, 4, seed=1, in_channels=2), SOURCE)
    target = _fresh(settings, SOURCE)
    first = {k: v.clone() for k, v in target.network.state_dict().items()}
    receipt = _load(settings, target, checkpoint, SOURCE, min_loaded=0.8)
    refused = [entry for entry in receipt.entries if entry.status == "refused"]
    assert refused
    assert {entry.block for entry in refused} == {"encoder1"}
    for entry in refused:
        assert entry.there is not None
        assert (entry.there[1], entry.here[1]) == (2, 1)
        assert torch.equal(first[entry.name], target.network.state_dict()[entry.name])
    assert receipt.mismatches == tuple(refused)


def test_head_that_does_not_fit_stays_whole(tmp_path: Path) -> None:
    settings = SETTINGS[0]
    source = _network(settings, 4, seed=1)
    checkpoint = _saved(tmp_path, source, SOURCE[:3])
    target = _fresh(settings, SOURCE)
    before = {k: v.clone() for k, v in target.network.state_dict().items()}
    receipt = _load(settings, target, checkpoint, SOURCE)
    assert {e.status for e in receipt.entries if not e.trunk} == {"refused"}
    assert {rule.rule for rule in receipt.channels} == {"fresh"}
    assert torch.equal(before["head.weight"], target.network.state_dict()["head.weight"])


@pytest.mark.parametrize(("channels", "status"), [(4, "loaded"), (3, "fresh")])
def test_weights_without_class_names(tmp_path: Path, channels: int, status: str) -> None:
    settings = SETTINGS[0]
    source, target = _network(settings, channels, seed=1), _fresh(settings, SOURCE)
    torch.save(source.network.state_dict(), tmp_path / "plain.pt")
    receipt = _load(settings, target, read_checkpoint(tmp_path / "plain.pt"), SOURCE)
    assert {e.status for e in receipt.entries if not e.trunk} == {status}
    if status == "loaded":
        assert torch.equal(source.network(IMAGE), target.network(IMAGE))
        assert {rule.rule for rule in receipt.channels} == {"copied by position"}


def test_channel_without_any_source_keeps_its_start(tmp_path: Path) -> None:
    settings = SETTINGS[0]
    source, target = _network(settings, 2, seed=1), _fresh(settings, ("background", "A"))
    start = target.network.state_dict()["head.weight"].clone()
    checkpoint = _saved(tmp_path, source, ("A", "B"))
    _load(settings, target, checkpoint, ("background", "A"))
    head = target.network.state_dict()["head.weight"]
    assert torch.equal(head[0], start[0])
    assert torch.equal(head[1], source.network.state_dict()["head.weight"][0])


@every_network
def test_prefixes_and_half_precision(tmp_path: Path, settings: NetworkSettings) -> None:
    source, target = _network(settings, 4, seed=1), _fresh(settings, SOURCE)
    state = {f"module.net.{k}": v for k, v in source.network.half().state_dict().items()}
    torch.save({"model": state | {"module.ema.decay": torch.ones(1)}}, tmp_path / "a.pt")
    receipt = _load(settings, target, read_checkpoint(tmp_path / "a.pt"), SOURCE)
    assert receipt.share_loaded == 1
    assert receipt.unused == ("module.ema.decay",)
    assert "module.net." in receipt.renamed
    assert all(p.dtype == torch.float32 for p in target.network.parameters())
    assert all(
        torch.equal(p, q.float())
        for p, q in zip(target.network.parameters(), source.network.parameters(), strict=True)
    )


def test_a_plain_monai_unet_gives_its_trunk(tmp_path: Path) -> None:
    settings = UNetSettings(channels=[4, 8, 8, 8], strides=[2, 2, 2], features=3)
    source = _network(settings, 2, seed=1)
    torch.save(source.network.trunk.state_dict(), tmp_path / "a.pt")  # type: ignore[union-attr]
    target = _fresh(settings, SOURCE)
    receipt = _load(settings, target, read_checkpoint(tmp_path / "a.pt"), SOURCE)
    assert receipt.share_loaded == 1
    assert receipt.renamed == "'trunk.' added"
    assert {e.status for e in receipt.entries if not e.trunk} == {"fresh"}


def test_aliases_are_neither_missing_nor_unused(tmp_path: Path) -> None:
    settings = SETTINGS[1]
    source, target = _network(settings, 4, seed=1), _fresh(settings, SOURCE)
    state = source.network.state_dict()
    for start in ("skip_layers", "downsamples"):
        kept = {k: v for k, v in state.items() if not k.startswith(start)}
        torch.save(kept, tmp_path / "a.pt")
        receipt = _load(settings, target, read_checkpoint(tmp_path / "a.pt"), SOURCE)
        assert receipt.share_loaded == 1
        assert not receipt.unused


def test_unknown_class_changes_nothing(tmp_path: Path) -> None:
    settings = SETTINGS[0]
    checkpoint = _saved(tmp_path, _network(settings, 4, seed=1), SOURCE)
    target = _fresh(settings, SOURCE)
    before = {k: v.clone() for k, v in target.network.state_dict().items()}
    with pytest.raises(ConfigError, match="'nowhere' is not a class of the checkpoint"):
        _load(settings, target, checkpoint, SOURCE, {"A": "nowhere"})
    assert all(torch.equal(before[k], v) for k, v in target.network.state_dict().items())


def test_gradients_still_flow_after_a_transfer(tmp_path: Path) -> None:
    settings = SETTINGS[0]
    target = _fresh(settings, SOURCE)
    _load(settings, target, _saved(tmp_path, _network(settings, 4, seed=1), SOURCE), SOURCE)
    target.network(IMAGE).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in target.network.parameters())
