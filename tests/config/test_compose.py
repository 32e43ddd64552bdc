"""Command lines and YAML files become settings, or one message that says all that is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.conf_files import conf_folder, groups, options_of
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF

EVERY_OPTION = [(group, option) for group in groups(None) for option in options_of(group, None)]


def mistake(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose("finetune", overrides, config_dir)
    return str(caught.value)


def own_yaml(folder: Path, text: str, name: str = "mine") -> Path:
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    (folder / "datasets" / f"{name}.yaml").write_text(text)
    return folder


def test_the_command_line_of_the_hsf_guide() -> None:
    settings = compose(
        "finetune",
        [
            "datasets=custom_dataset",
            "finetuning.out_channels=8",
            "models.lr=1e-3",
            "models.use_forgiving_loss=False",
        ],
    )
    assert settings.finetuning.out_channels == 8
    assert settings.models.lr == 1e-3
    assert settings.models.use_forgiving_loss is False


def test_the_yaml_of_the_hsf_guide_wins_over_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    own = tmp_path / "conf, of 'mine' [1]=a"
    (own / "datasets").mkdir(parents=True)
    shutil.copy(CONF / "datasets" / "hsf_guide.yaml", own / "datasets" / "custom_dataset.yaml")
    datasets = compose("finetune", ["datasets=custom_dataset"], own).datasets
    assert (datasets.main_path, datasets.output_path) == ("/mnt/data/hsf", "/mnt/hsf/models")
    assert (datasets.batch_size, datasets.num_workers, datasets.train_ratio) == (1, 16, 0.9)
    assert datasets.k_sample is None
    assert datasets.train_val_test_idx is None
    clark = datasets.datasets["clark"]
    assert (clark.path, clark.ca_type) == ("hippocampus_clark_3T", "1/23")
    assert list(clark.patterns) == ["right_t2", "left_t2", "averaged_right_t2", "averaged_left_t2"]
    assert clark.patterns["left_t2"].label == "t2w_Hippocampus_left_ElasticSyN_seg_crop.nii.gz"
    assert clark.labels == {n: n for n in range(1, 8)}
    assert clark.labels_names[2] == "CA2/3"
    assert datasets.patch_vox == [128, 128, 128], "what it leaves out comes from base.yaml"


@pytest.mark.parametrize(("group", "option"), EVERY_OPTION)
def test_every_option_composes(group: str, option: str) -> None:
    if (group, option) == ("datasets", "base"):
        pytest.skip("what the others fall back on: it names no cohort")
    assert compose("finetune", [f"{group}={option}"]).task == "finetune"


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("models.learning_rate=1", "models.lr"),
        ("finetuning.lr=1", "models.lr"),
        ("modles.lr=1", "models.lr"),
        ("finetuning.depht=1", "finetuning.depth"),
        ("lightning.epochs=3", "lightning.max_epochs"),
        ("modles=unet", "models"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_setting_on_the_command_line(override: str, meant: str) -> None:
    text = mistake(override)
    assert f"there is no setting '{override.split('=')[0]}'" in text
    assert f"did you mean '{meant}'?" in text


def test_an_unknown_setting_that_is_like_no_other_lists_its_group() -> None:
    assert "a setting of logger: name, project, offline" in mistake("logger.zzzz=1")


def test_a_group_lists_each_of_its_settings_once() -> None:
    listed = mistake("models=dynunet", "models.features=1").partition("a setting of models: ")[2]
    names = [name.strip() for name in listed.splitlines()[0].split(",")]
    assert len(names) == len(set(names)) > 3


def test_suggestions_are_for_the_chosen_network() -> None:
    text = mistake("models=segresnet", "models.num_res_units=1")
    assert "did you mean" not in text
    assert "blocks_down" in text


def test_an_unknown_option() -> None:
    text = mistake("models=unett")
    assert "there is no models=unett" in text
    assert "dynunet, mednext, monai_unet, nnunet, pretrained, primus, resnet_unet" in text
    assert "did you mean models=unet?" in text
    assert "DIR/datasets/mine.yaml" in mistake("datasets=mine")


def test_an_unknown_key_in_a_yaml_of_ones_own(tmp_path: Path) -> None:
    text = (CONF / "datasets" / "tiny.yaml").read_text().replace("labels_names", "label_names")
    message = mistake("datasets=mine", config_dir=own_yaml(tmp_path, text))
    assert "datasets.datasets.tiny.label_names: there is no such setting" in message
    assert "did you mean 'labels_names'?" in message
    assert "datasets.datasets.tiny.labels_names: this setting is missing" in message
    assert str(tmp_path / "datasets" / "mine.yaml") in message


def test_wrong_values_come_all_at_once_with_their_paths() -> None:
    text = mistake(
        "models.lr=fast",
        "finetuning.mode=decodr",
        "finetuning.depth=-2",
        "finetuning.unfreeze_frequency=0",
        "lightning.devices=1.5",
        "datasets.datasets.phantom.patterns.left.mri=3",
    )
    assert text.startswith("6 settings are wrong:")
    assert "models.lr: should be a valid number" in text
    assert "(found 'fast')" in text
    assert "finetuning.mode: should be 'encoder', 'decoder' or 'both' (found 'decodr')" in text
    assert "finetuning.depth: should be greater than or equal to -1 (found -2)" in text
    assert "patterns.left.mri: should be a valid string, or should be a valid list" in text
    assert "file:" not in text, "all of it stems from the command line"


def test_a_wrong_value_names_the_file_it_stems_from(tmp_path: Path) -> None:
    text = (CONF / "datasets" / "tiny.yaml").read_text().replace("0.6", "6")
    message = mistake("datasets=mine", config_dir=own_yaml(tmp_path, text))
    assert "datasets.train_ratio: should be less than or equal to 1 (found 6)" in message
    assert str(tmp_path / "datasets" / "mine.yaml") in message


def test_a_rule_over_several_settings_does_not_print_them_all() -> None:
    text = mistake("models.channels=[4,8]")
    assert "models: strides needs one entry fewer than channels" in text
    assert "weight_decay" not in text
    assert "models.name: should be one of 'unet'" in mistake("models.name=vit")


@pytest.mark.parametrize(
    ("text", "said"),
    [("datasets:\n\tmine: 1\n", "mine.yaml"), ("a: [1\n", "mine.yaml"), ("\0", "mine.yaml")],
)
def test_a_file_that_is_no_yaml(tmp_path: Path, text: str, said: str) -> None:
    assert said in mistake("datasets=mine", config_dir=own_yaml(tmp_path, text))


@pytest.mark.parametrize(
    "override", ["models", "models.lr==3", "datasets.main_path=/a=b", "models=null", "seed=0,1"]
)
def test_an_override_that_cannot_be_read(override: str) -> None:
    assert "the configuration cannot be composed" in mistake(override)


def test_a_config_dir_that_is_not_there(tmp_path: Path) -> None:
    assert str(tmp_path / "no") in mistake(config_dir=tmp_path / "no")


def test_labels_can_be_added_changed_and_named_on_the_command_line() -> None:
    where = "datasets.datasets.phantom"
    settings = compose(
        "finetune",
        [
            "datasets=custom",
            f"+{where}.labels.9=3",
            f"{where}.labels.1=2",
            f"{where}.labels_names.3=X",
        ],
    )
    phantom = settings.datasets.datasets["phantom"]
    assert phantom.labels == {1: 2, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 9: 3}
    assert phantom.labels_names[3] == "X"


def test_what_a_cohort_leaves_at_its_default_can_be_given_on_the_command_line() -> None:
    cohort = "datasets.datasets.phantom"
    given = [f"{cohort}.exclude=['sub-T01/**']", f"{cohort}.weight=2", f"{cohort}.unannotated=[DG]"]
    found = compose("finetune", ["datasets=phantom", *given]).datasets.datasets["phantom"]
    assert (found.exclude, found.weight, found.unannotated) == (["sub-T01/**"], 2, ["DG"])
    for wrong, said in (("phantom.excluded", "phantom.exclude"), ("fantom.exclude", "fantom")):
        with pytest.raises(ConfigError, match=said):
            compose("finetune", ["datasets=phantom", f"datasets.datasets.{wrong}=[a]"])


def test_derive_from_is_given_in_one_piece() -> None:
    settings = compose("finetune", ["finetuning.derive_from={a: blob, b: [blob, c]}"])
    assert settings.weights.derive_from == {"a": "blob", "b": ["blob", "c"]}


def test_paths_mean_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = compose(
        "finetune", ["datasets.main_path=here", "finetuning.pretrained=run", "resume=auto"]
    )
    assert settings.datasets.main_path == str(tmp_path / "here")
    assert settings.datasets.output_path == str(tmp_path / "outputs")
    assert settings.weights.pretrained == str(tmp_path / "run")
    assert settings.resume == "auto"


def test_training_from_scratch_has_no_weights_and_unfreezes_everything() -> None:
    settings = compose("train")
    assert settings.task == "train"
    assert (settings.weights.pretrained, settings.finetuning.strategy) == ("none", "full")


def test_the_shipped_yaml_files_lie_beside_or_inside_the_package() -> None:
    assert (conf_folder() / "finetune.yaml").is_file()
