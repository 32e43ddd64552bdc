"""Weights that have a name: the files of `weights/`, and runs that start from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.config.conf_files import conf_folder
from hsf_finetune.config.named_weights import read_named
from hsf_finetune.config.settings import Preprocessing, Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.networks.build import build
from hsf_finetune.planning.start import build_network, find_weights, load_weights
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.system.urls import parse_address
from hsf_finetune.weights.sources.given_weights import with_recorded_network
from hsf_finetune.weights.sources.remote import fetch_weights
from tests.conftest import CONF, FAST
from tests.weights.file_server import Site, serving

SHIPPED = [p for p in (conf_folder() / "weights").glob("*.yaml") if p.stem != "default"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))
    with serving() as site:
        yield site


@pytest.fixture
def own(site: Site, tmp_path: Path) -> Path:
    """A folder for `--config-dir` with weights `ours`: a UNet of the tiny cohort's classes."""
    torch.manual_seed(5)
    models = compose("finetune", FAST).models
    weights = tmp_path / "weights.pt"
    torch.save(build(models, 1, 3).network.state_dict(), weights)
    site.files["/ours.pt"] = weights.read_bytes()
    entry = yaml.safe_load((conf_folder() / "weights" / "hsf.yaml").read_text())
    entry |= {
        "name": "Ours 1.0",
        "url": f"{site.url}/ours.pt",
        "checksum": str(Checksum.of_file(weights)),
        "classes": ["background", "front", "back"],
        "models": models.model_dump(mode="json"),
    }
    folder = tmp_path / "conf" / "weights"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text(yaml.safe_dump(entry))
    return tmp_path / "conf"


def mistake(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose("finetune", overrides, config_dir)
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_names_are_complete(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    named = read_named(path)
    if named.url is not None:
        assert parse_address(named.url).url.startswith("https://")
    with torch.device("meta"):
        network = build(named.models, len(named.channels), len(named.classes or "ab"))
    assert network.head.size > 0
    assert named.classes is None or named.classes[0] == "background"
    # What the file does not say, the description does.
    says_itself = named.models.name in ("nnunet", "primus")
    assert (named.preprocessing is None) == says_itself
    assert named.licence
    assert named.citation


def test_hsf_is_what_it_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    settings = compose("finetune", ["models=arunet", "finetuning.pretrained=hsf"])
    named = settings.weights.named
    assert named is not None
    assert settings.weights.pretrained == "hsf"
    assert parse_address(named.url).url == (
        "https://huggingface.co/poiretclement/hsf/resolve/main/"
        "ckpt/arunet_4.0.0single_1706895706.ckpt"
    )
    assert named.checksum == "xxh3_64:3165f610a375ba33"
    assert named.classes == ["background", "DG", "CA1", "CA2", "CA3", "SUB"]
    assert Settings.model_validate(settings.to_dict()) == settings


def test_addresses_stay_as_they_are_and_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def pretrained(value: str) -> str | None:
        return compose("finetune", [f"finetuning.pretrained={value}"]).weights.pretrained

    for address in ("https://a.org/m.ckpt", "hf://lab/net/m.ckpt@v1"):
        assert pretrained(address) == address
    assert pretrained("'https://a.org/m?download=1'") == "https://a.org/m?download=1"
    assert pretrained("./hsf") == str(tmp_path / "hsf")
    assert pretrained("hsf.ckpt") == str(tmp_path / "hsf.ckpt")
    assert pretrained("some_run") == str(tmp_path / "some_run")


@pytest.mark.parametrize("given", ["hfs", "HSF", "hsf2"])
def test_a_name_that_is_nearly_one(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = mistake(f"finetuning.pretrained={given}")
    assert "did you mean finetuning.pretrained=hsf?" in text
    assert given in text
    (tmp_path / given).mkdir()
    composed = compose("finetune", [f"finetuning.pretrained={given}"])
    assert composed.weights.pretrained == str(tmp_path / given), "a path that is there"


def test_a_name_is_an_option_of_the_group_too(own: Path) -> None:
    for name in ("hsf", "ours"):
        by_name = compose("finetune", [f"finetuning.pretrained={name}"], own)
        assert compose("finetune", [f"weights={name}"], own) == by_name
        assert by_name.weights.named is not None
    more = compose("finetune", ["weights=hsf", "weights.checksum=md5:1", "finetuning.trust=[a]"])
    assert more.weights.named == compose("finetune", ["weights=hsf"]).weights.named
    assert (more.weights.checksum, more.weights.trust) == ("md5:1", ["a"])
    assert "did you mean weights=hsf?" in mistake("weights=hfs")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"licence": None}, "licence"),
        ({"license": "MIT"}, "license"),
        ({"checksum": "12"}, "not a checksum"),
        ({"url": "weights.pt"}, "https://HOST"),
        ({"url": "http://a.org/x"}, "over http"),
        ({"classes": ["background"]}, "classes"),
        ({"models": {"name": "resnet"}}, "models"),
    ],
)
def test_a_wrong_description(own: Path, change: dict[str, Any], said: str) -> None:
    file = own / "weights" / "ours.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    text = mistake("finetuning.pretrained=ours", config_dir=own)
    assert str(file) in text
    assert said in text


def test_a_description_that_is_no_yaml(own: Path) -> None:
    for content in ("name: [", "", "- a"):
        (own / "weights" / "ours.yaml").write_text(content)
        assert "ours.yaml" in mistake("finetuning.pretrained=ours", config_dir=own)


# ------------------------------------------------------------------------- runs
def tiny(data: Path, own: Path, *overrides: str) -> Settings:
    return compose(
        "finetune",
        ["datasets=tiny", f"datasets.main_path={data}", *FAST, *overrides],
        config_dir=_both(own),
    )


def _both(own: Path) -> Path:
    """The tests' own YAML files beside the named weights."""
    if not (own / "datasets").exists():
        (own / "datasets").symlink_to(CONF / "datasets")
    return own


def load(settings: Settings, said: list[str]) -> tuple[Any, Any]:
    cohort = discover(settings.datasets)
    network = build_network(settings, cohort)
    source = find_weights(settings, cohort, say=said.append)
    assert source is not None
    return network, load_weights(settings, network, cohort, source).receipt


def test_named_weights_load_class_by_class_and_name_their_source(
    data: Path, own: Path, site: Site
) -> None:
    said: list[str] = []
    settings = tiny(data, own, "finetuning.pretrained=ours")
    _, receipt = load(settings, said)
    text = "\n".join(said)
    for part in ("Ours 1.0", "MIT", "background, front, back", "Frontiers", f"{site.url}/ours.pt"):
        assert part in text
    assert receipt.share_loaded == 1
    assert receipt.channels[0].sources == ("background",)
    saved = json.loads(json.dumps(receipt.to_dict()))["origin"]
    assert saved["licence"] == "MIT"
    assert saved["name"] == "Ours 1.0"
    assert saved["checksum"].startswith("sha256:")
    assert saved["checked"]
    assert saved["citation"].startswith("Poiret")
    said.clear()
    _, again = load(settings, said)
    assert "  from the cache" in said
    assert len(site.requests) == 1
    assert again.digest == receipt.digest


def test_the_contract_of_a_name_is_that_of_the_run(data: Path, own: Path, site: Site) -> None:
    entry = own / "weights" / "ours.yaml"
    window = {"kind": "window", "low": -175, "high": 250}
    preprocessing = {"spacing_mm": [1.5, 1.5, 1.5], "resampling": "monai", "intensity": [window]}
    described = yaml.safe_load(entry.read_text()) | {"preprocessing": preprocessing}
    entry.write_text(yaml.safe_dump(described | {"load": "trunk", "key_map": {"a.": "b."}}))
    settings = tiny(data, own, "finetuning.pretrained=ours")
    assert (settings.weights.load, settings.weights.key_map) == ("trunk", {"a.": "b."})
    source = find_weights(settings, discover(settings.datasets))
    assert source is not None
    assert source.checkpoint.preprocessing == Preprocessing.model_validate(preprocessing)
    given = tiny(data, own, "finetuning.pretrained=ours", "weights.load=encoder")
    assert given.weights.load == "encoder"


def test_conditions_of_a_licence_are_accepted_once(data: Path, own: Path, site: Site) -> None:
    entry = own / "weights" / "ours.yaml"
    described = yaml.safe_load(entry.read_text()) | {"conditions": ["no commercial use"]}
    entry.write_text(yaml.safe_dump(described))
    by_name = "finetuning.pretrained=ours"
    with pytest.raises(ConfigError, match=r"(?s)no commercial use.*weights.accept_licence=true"):
        load(tiny(data, own, by_name), [])
    assert not site.requests, "nothing was fetched"
    said: list[str] = []
    load(tiny(data, own, by_name, "weights.accept_licence=true"), said)
    assert "  licence: MIT; no commercial use" in said
    load(tiny(data, own, by_name), [])
    entry.write_text(yaml.safe_dump(described | {"conditions": ["no use at all"]}))
    with pytest.raises(ConfigError, match="no use at all"):
        load(tiny(data, own, by_name), [])


def test_a_name_may_stand_for_a_file_that_the_user_has(
    data: Path, own: Path, site: Site, tmp_path: Path
) -> None:
    entry = own / "weights" / "ours.yaml"
    entry.write_text(yaml.safe_dump(yaml.safe_load(entry.read_text()) | {"url": None}))
    by_name = "finetuning.pretrained=ours"
    with pytest.raises(ConfigError, match=r"(?s)no address.*weights\.file=PATH"):
        load(tiny(data, own, by_name), [])
    said: list[str] = []
    _, receipt = load(tiny(data, own, by_name, f"weights.file={tmp_path / 'weights.pt'}"), said)
    assert receipt.share_loaded == 1
    assert not site.requests
    assert "Ours 1.0" in said[0]
    assert "no name is given" in mistake(
        f"finetuning.pretrained={tmp_path / 'weights.pt'}", "weights.file=a.pt"
    )


def test_names_are_listed_and_said_all_about(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["weights", *arguments, "--config-dir", str(own)])
        out = capsys.readouterr()
        return " ".join((out.err if ended.value.code else out.out).split())

    assert "ours Ours 1.0" in said()
    assert "suprem_unet" in said()
    for part in ("no commercial use", "1.5 x 1.5 x 1.5", "models=suprem_unet models.width=32"):
        assert part in said("suprem_unet")
    unknown = said("supremunet")
    assert "no weights called 'supremunet'" in unknown
    assert (
        "hsf-finetune plan, and by advise: datasets=DATASET finetuning.pretrained=PATH" in unknown
    )


def test_a_url_says_how_to_pin_it(data: Path, own: Path, site: Site) -> None:
    said: list[str] = []
    _, receipt = load(tiny(data, own, f"finetuning.pretrained={site.url}/ours.pt"), said)
    (pin,) = [line for line in said if "finetuning.checksum=" in line]
    assert pin.endswith(f"finetuning.checksum=sha256:{receipt.digest}")
    assert not receipt.to_dict()["origin"]["checked"]


def test_named_weights_of_another_network(data: Path, own: Path, site: Site) -> None:
    settings = tiny(data, own, "finetuning.pretrained=hsf")
    with pytest.raises(ConfigError, match=r"(?s)models=unet.*models=arunet"):
        build_network(settings, discover(settings.datasets))


def test_a_second_checksum_is_checked_too(own: Path, site: Site) -> None:
    named = read_named(own / "weights" / "ours.yaml")
    with pytest.raises(WeightsError, match="md5:0000"):
        fetch_weights("ours", named, "md5:" + "0" * 32)


def test_a_checksum_for_a_file_of_ones_own(data: Path, own: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    before = file.read_bytes()
    pretrained = f"finetuning.pretrained={file}"
    with pytest.raises(WeightsError, match=r"weights\.pt[\s\S]*md5:"):
        load(tiny(data, own, pretrained, f"finetuning.checksum={'0' * 32}"), [])
    assert file.read_bytes() == before
    right = Checksum.of_file(file, "xxh3_64")
    _, receipt = load(tiny(data, own, pretrained, f"finetuning.checksum={right}"), [])
    assert receipt.share_loaded == 1


def test_a_folder_has_no_checksum(data: Path, own: Path, tmp_path: Path) -> None:
    digits = f"finetuning.checksum={'0' * 32}"
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").touch()
    nnunet = Path(__file__).parents[1] / "weights" / "stored" / "nnunet" / "plain"
    for folder, kind in ((bundle, "MONAI bundle"), (next(nnunet.glob("nnUNet*")), "nnU-Net")):
        with pytest.raises(ConfigError, match=rf"several files have no checksum[\s\S]*{kind}"):
            load(tiny(data, own, f"finetuning.pretrained={folder}", digits), [])


def test_a_name_tells_the_network(data: Path, own: Path, site: Site) -> None:
    # Which the names and shapes of its tensors would not.
    entry = own / "weights" / "ours.yaml"
    entry.write_text(entry.read_text().replace("norm: instance", "norm: group"))
    composed = compose("finetune", ["models=pretrained", "finetuning.pretrained=ours"], own)
    settings = tiny(data, own).model_copy(
        update={"models": composed.models, "weights": composed.weights}
    )
    source = find_weights(settings, discover(settings.datasets))
    assert source is not None
    ours = compose("finetune", [*FAST, "models.norm=group"]).models
    resolved = with_recorded_network(settings, source.checkpoint).models
    assert resolved.model_dump(exclude={"lr"}) == ours.model_dump(exclude={"lr"})


def test_a_path_is_not_remote() -> None:
    assert fetch_weights("/data/weights.pt") is None
