"""Transfer: what loads, what is refused, and that a refusal leaves the network as it was."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hsf_finetune.config.settings import NetworkSettings, UNetSettings
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from hsf_finetune.weights.transfer.receipt import Load, Receipt
from tests.weights.small_networks import (
    DYNUNET,
    SETTINGS,
    SOURCE,
    UNET,
    copied,
    every_network,
    fresh,
    image,
    load,
    logits,
    random_network,
    saved,
    unchanged,
)


def test_dropped_classes_are_listed(tmp_path: Path) -> None:
    checkpoint, classes = saved(tmp_path, random_network(UNET, 4, seed=1), SOURCE), SOURCE[:3:2]
    receipt = load(UNET, fresh(UNET, classes), checkpoint, classes)
    assert receipt.dropped == ("A", "C")


@every_network
def test_every_tensor_lands_once_and_buffers_too(tmp_path: Path, settings: NetworkSettings) -> None:
    source, target = random_network(settings, 4, seed=1), fresh(settings, SOURCE)
    receipt = load(settings, target, saved(tmp_path, source, SOURCE), SOURCE)
    distinct = {id(t) for t in target.network.state_dict(keep_vars=True).values()}
    assert len({entry.name for entry in receipt.entries}) == len(receipt.entries)
    assert len(receipt.entries) == len(distinct)
    expected = source.network.state_dict()
    for name, tensor in target.network.state_dict().items():
        assert torch.equal(tensor, expected[name])


@every_network
def test_too_little_in_common_changes_nothing(tmp_path: Path, settings: NetworkSettings) -> None:
    other = UNET if settings.name == "arunet" else SETTINGS[-1]
    checkpoint = saved(tmp_path, random_network(other, 4, seed=1), SOURCE)
    target = fresh(settings, SOURCE)
    before = copied(target)
    with pytest.raises(
        WeightsError, match=r"(?s)does not fit.*found: +\d% of the trunk's tensors"
    ) as caught:
        load(settings, target, checkpoint, SOURCE)
    assert "finetuning.min_loaded=" not in str(caught.value)
    assert unchanged(target, before)


def test_wrong_width_lists_mismatches_and_the_overrides_to_use(tmp_path: Path) -> None:
    wide = UNetSettings(channels=[4, 8, 16], strides=[2, 2], features=4, norm="batch")
    remarks = {"models": wide.model_dump(mode="json"), "in_channels": 1}
    checkpoint = saved(tmp_path, random_network(wide, 4, seed=1), SOURCE, **remarks)
    with pytest.raises(WeightsError) as caught:
        load(UNET, fresh(UNET, SOURCE), checkpoint, SOURCE)
    message = str(caught.value)
    assert "(16, 8, 3, 3, 3) in the checkpoint, (8, 8, 3, 3, 3) in the network" in message
    assert "models=unet models.channels=[4,8,16] models.strides=[2,2]" in message
    assert "input channels: 1" in message
    assert "lr" not in message
    assert "... and" in message


def test_most_tensors_are_not_enough_where_most_parameters_are_missing(tmp_path: Path) -> None:
    shallow = UNetSettings(channels=[4, 8, 64], strides=[2, 2], features=4, norm="batch")
    checkpoint = saved(tmp_path, random_network(shallow, 4, seed=1), SOURCE)
    with pytest.raises(WeightsError, match="of its parameters fit"):
        load(UNET, fresh(UNET, SOURCE), checkpoint, SOURCE, min_loaded=0.6)


def test_the_share_that_is_offered_would_be_accepted(tmp_path: Path) -> None:
    thin = UNetSettings(channels=[4, 8, 8], strides=[2, 2], features=4, norm="instance")
    checkpoint = saved(tmp_path, random_network(thin, 4, seed=1), SOURCE)
    with pytest.raises(WeightsError, match="not in the checkpoint") as caught:
        load(UNET, fresh(UNET, SOURCE), checkpoint, SOURCE)
    offered = float(str(caught.value).rpartition("finetuning.min_loaded=")[2])
    receipt = load(UNET, fresh(UNET, SOURCE), checkpoint, SOURCE, min_loaded=offered)
    assert any("start fresh, as finetuning.min_loaded allows" in said for said in receipt.remarks())


def test_head_that_does_not_fit_stays_whole(tmp_path: Path) -> None:
    settings = UNET
    source = random_network(settings, 4, seed=1)
    checkpoint = saved(tmp_path, source, SOURCE[:3])
    target = fresh(settings, SOURCE)
    before = copied(target)
    receipt = load(settings, target, checkpoint, SOURCE)
    assert {e.status for e in receipt.entries if not e.trunk} == {"refused"}
    assert {rule.rule for rule in receipt.channels} == {"fresh"}
    assert torch.equal(before["head.weight"], target.network.state_dict()["head.weight"])


def test_a_head_can_be_copied_by_position_whatever_its_classes_are_called(tmp_path: Path) -> None:
    source, classes = random_network(UNET, 4, seed=1), ("background", "X", "A", "Y")
    target = fresh(UNET, classes)
    receipt = load(UNET, target, saved(tmp_path, source, SOURCE), classes, head="copy")
    assert torch.equal(logits(source), logits(target))
    assert [rule.sources for rule in receipt.channels] == [(name,) for name in SOURCE]


@every_network
def test_a_fresh_head_stays_as_it_was(tmp_path: Path, settings: NetworkSettings) -> None:
    target = fresh(settings, SOURCE)
    before = copied(target)
    checkpoint = saved(tmp_path, random_network(settings, 4, seed=1), SOURCE)
    receipt = load(settings, target, checkpoint, SOURCE, head="fresh")
    head = [entry for entry in receipt.entries if not entry.trunk]
    assert {(entry.status, entry.reason) for entry in head} == {("fresh", "finetuning.head=fresh")}
    state = target.network.state_dict()
    assert all(torch.equal(before[entry.name], state[entry.name]) for entry in head)
    assert receipt.share_loaded == 1
    assert receipt.dropped == SOURCE


def test_a_head_that_is_not_there_cannot_be_copied(tmp_path: Path) -> None:
    source, target = random_network(UNET, 4, seed=1), fresh(UNET, SOURCE)
    state = {k: v for k, v in source.network.state_dict().items() if not k.startswith("head")}
    torch.save(state, tmp_path / "a.pt")
    checkpoint, before = read_checkpoint(tmp_path / "a.pt"), copied(target)
    with pytest.raises(WeightsError, match="not in the checkpoint"):
        load(UNET, target, checkpoint, SOURCE, source_classes=SOURCE, head="copy")
    assert unchanged(target, before)


@pytest.mark.parametrize("policy", ["transfer", "copy"])
@pytest.mark.parametrize(
    ("theirs", "ours", "coarser"),
    [
        ({"deep_supervision": False}, SETTINGS[2], 2),
        ({"deep_supr_num": 1}, SETTINGS[2], 1),
        ({"deep_supervision": False}, SETTINGS[9], 1),
    ],
)
def test_heads_of_coarser_levels_start_fresh_by_themselves(
    tmp_path: Path, theirs: dict[str, object], ours: NetworkSettings, coarser: int, policy: str
) -> None:
    source = random_network(ours.model_copy(update=theirs), 4, seed=1)
    target = fresh(ours, SOURCE)
    before = copied(target)
    receipt = load(ours, target, saved(tmp_path, source, SOURCE), SOURCE, head=policy)
    kept = [entry for entry in receipt.entries if entry.status == "fresh"]
    assert len(kept) == 2 * coarser, "weight and bias of each"
    assert {entry.reason for entry in kept} == {"not in the checkpoint"}
    assert all(torch.equal(before[e.name], target.network.state_dict()[e.name]) for e in kept)
    assert all(rule.rule.startswith("copied") for rule in receipt.channels)
    assert receipt.share_loaded == 1
    assert torch.equal(logits(source), logits(target))


def test_a_head_of_which_a_part_is_missing_stays_whole(tmp_path: Path) -> None:
    settings = SETTINGS[2]
    state = random_network(settings, 4, seed=1).network.state_dict()
    for lost in ("deep_supervision_heads.0.conv.conv.bias", "output_block.conv.conv"):
        # The same tensors also go by the names of the levels they belong to.
        gone = {t.data_ptr() for name, t in state.items() if name.startswith(lost)}
        kept = {name: t for name, t in state.items() if t.data_ptr() not in gone}
        assert len(kept) < len(state)
        torch.save(kept, tmp_path / "a.pt")
        checkpoint = read_checkpoint(tmp_path / "a.pt")
        receipt = load(settings, fresh(settings, SOURCE), checkpoint, SOURCE)
        assert {rule.rule for rule in receipt.channels} == {"fresh"}
        assert not any(entry.filled for entry in receipt.entries if not entry.trunk)


@pytest.mark.parametrize(("channels", "status"), [(4, "loaded"), (3, "fresh")])
def test_weights_without_class_names(tmp_path: Path, channels: int, status: str) -> None:
    settings = UNET
    source, target = random_network(settings, channels, seed=1), fresh(settings, SOURCE)
    torch.save(source.network.state_dict(), tmp_path / "plain.pt")
    receipt = load(settings, target, read_checkpoint(tmp_path / "plain.pt"), SOURCE)
    assert {e.status for e in receipt.entries if not e.trunk} == {status}
    if status == "loaded":
        assert torch.equal(logits(source), logits(target))
        assert {rule.rule for rule in receipt.channels} == {"copied by position"}


def test_channel_without_any_source_keeps_its_start(tmp_path: Path) -> None:
    settings = UNET
    source, target = random_network(settings, 2, seed=1), fresh(settings, ("background", "A"))
    start = target.network.state_dict()["head.weight"].clone()
    checkpoint = saved(tmp_path, source, ("A", "B"))
    load(settings, target, checkpoint, ("background", "A"))
    head = target.network.state_dict()["head.weight"]
    assert torch.equal(head[0], start[0])
    assert torch.equal(head[1], source.network.state_dict()["head.weight"][0])


@every_network
def test_prefixes_and_half_precision(tmp_path: Path, settings: NetworkSettings) -> None:
    source, target = random_network(settings, 4, seed=1), fresh(settings, SOURCE)
    state = {f"module.net.{k}": v for k, v in source.network.half().state_dict().items()}
    torch.save({"model": state | {"module.ema.decay": torch.ones(1)}}, tmp_path / "a.pt")
    receipt = load(settings, target, read_checkpoint(tmp_path / "a.pt"), SOURCE)
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
    source = random_network(settings, 2, seed=1)
    torch.save(source.network.trunk.state_dict(), tmp_path / "a.pt")  # type: ignore[union-attr]
    target = fresh(settings, SOURCE)
    receipt = load(settings, target, read_checkpoint(tmp_path / "a.pt"), SOURCE)
    assert receipt.share_loaded == 1
    assert receipt.renamed == "'trunk.' added"
    assert {e.status for e in receipt.entries if not e.trunk} == {"fresh"}


def test_aliases_are_neither_missing_nor_unused(tmp_path: Path) -> None:
    settings = DYNUNET
    source, target = random_network(settings, 4, seed=1), fresh(settings, SOURCE)
    state = source.network.state_dict()
    for start in ("skip_layers", "downsamples"):
        kept = {k: v for k, v in state.items() if not k.startswith(start)}
        torch.save(kept, tmp_path / "a.pt")
        receipt = load(settings, target, read_checkpoint(tmp_path / "a.pt"), SOURCE)
        assert receipt.share_loaded == 1
        assert not receipt.unused


def test_unknown_class_changes_nothing(tmp_path: Path) -> None:
    settings = UNET
    checkpoint = saved(tmp_path, random_network(settings, 4, seed=1), SOURCE)
    target = fresh(settings, SOURCE)
    before = copied(target)
    with pytest.raises(ConfigError, match="'nowhere' is not a class of the checkpoint"):
        load(settings, target, checkpoint, SOURCE, {"A": "nowhere"})
    assert unchanged(target, before)


def test_gradients_still_flow_after_a_transfer(tmp_path: Path) -> None:
    settings = UNET
    target = fresh(settings, SOURCE)
    load(settings, target, saved(tmp_path, random_network(settings, 4, seed=1), SOURCE), SOURCE)
    target.network(image(target).float()).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in target.network.parameters())


@every_network
@pytest.mark.parametrize("taken", ["trunk", "encoder"])
def test_a_part_is_taken_and_the_rest_stays(
    tmp_path: Path, settings: NetworkSettings, taken: Load
) -> None:
    source, target = random_network(settings, 4, seed=1), fresh(settings, SOURCE)
    before, expected = copied(target), source.network.state_dict()
    matching = MatchRequest(load=taken)
    receipt = load(settings, target, saved(tmp_path, source, SOURCE), SOURCE, matching=matching)
    assert receipt.share_loaded == 1
    loaded = {entry.name for entry in receipt.entries if entry.filled}
    wanted = {
        e.name for e in receipt.entries if e.trunk and (taken == "trunk" or e.part == "encoder")
    }
    assert loaded == wanted
    for name, tensor in target.network.state_dict().items():
        if name in loaded:
            assert torch.equal(tensor, expected[name])
        elif name in {entry.name for entry in receipt.entries}:
            assert torch.equal(tensor, before[name])


@every_network
def test_weights_of_an_encoder_alone_have_their_own_setting(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    source, target = random_network(settings, 4, seed=1), fresh(settings, SOURCE)
    encoder, state = source.encoder_names(), source.network.state_dict()
    heads = {"rotation_head.weight": torch.ones(2), "projector.0.weight": torch.ones(2)}
    torch.save({n: state[n] for n in state if n in encoder} | heads, tmp_path / "a.pt")
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"weights\.load=encoder"):
        load(settings, target, checkpoint, SOURCE)
    receipt = load(settings, target, checkpoint, SOURCE, matching=MatchRequest(load="encoder"))
    filled, size = receipt.count("encoder")
    assert filled == size
    assert (receipt.count("decoder")[0], receipt.count("head")[0]) == (0, 0)
    assert set(receipt.unused) == set(heads)
    assert f"encoder {size} of {size} tensors, decoder fresh, head fresh" in shown(receipt)


def test_an_incomplete_encoder_is_refused(tmp_path: Path) -> None:
    state = random_network(UNET, 4, seed=1).network.state_dict()
    (*kept, _) = [name for name in state if name.startswith("trunk.model.1.submodule.1.")]
    torch.save({name: state[name] for name in kept}, tmp_path / "a.pt")
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="not in the checkpoint"):
        load(UNET, fresh(UNET, SOURCE), checkpoint, SOURCE, matching=MatchRequest(load="encoder"))


def shown(receipt: Receipt) -> str:
    """The receipt as a terminal shows it."""
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    console.print(receipt.table())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_head_without_names_goes_by_position_and_says_so(tmp_path: Path) -> None:
    source = random_network(UNET, 4, seed=1)
    torch.save(source.network.state_dict(), tmp_path / "a.pt")
    receipt = load(UNET, fresh(UNET, SOURCE), read_checkpoint(tmp_path / "a.pt"), SOURCE)
    text = shown(receipt)
    assert "taken by position" in text
    assert "'finetuning.source_classes=[background, ...]'" in text
