"""Every code block of the documentation runs, or says what it would need.

How a block is run follows from its language and its commands:

- `python finetune.py`, `python train.py` and `hsf-finetune ...` run for real, as they stand, in
  a folder that holds what they name. Overrides that make network and run small are appended.
- `make TARGET` is a dry run (`make -n`): the targets themselves are what CI runs.
- `.venv/bin/pre-commit install` is compared with the configuration, and not run: it would
  change the repository's hooks.
- Python blocks of a page run one after the other, as one session.
- YAML blocks are composed: as a file of the group that their keys belong to.

A block that is marked runs no command, but its overrides must compose all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsf_finetune.config.compose import compose
from hsf_finetune.config.conf_files import conf_folder
from hsf_finetune.config.settings import (
    DatasetSettings,
    DatasetsSettings,
    PreprocessingSettings,
    Settings,
)
from tests.docs.code_blocks import (
    LANGUAGES,
    PAGES,
    REPOSITORY,
    Block,
    all_blocks,
    commands_of,
    prose_of,
)
from tests.docs.commands import (
    OURS,
    command_and_arguments,
    compose_command,
    help_of,
    run_command,
)

BLOCKS = all_blocks()
SESSIONS: dict[str, dict[str, Any]] = {}
"""Page -> names that its Python blocks have defined so far."""
GROUPS = (
    "augmentation",
    "datasets",
    "finetuning",
    "lightning",
    "logger",
    "models",
    "preprocessing",
    "weights",
)
COMMAND_WORDS = re.compile(
    r"^ *(?:\$ )?(?:python|pip|make|hsf-finetune|git|srun|sbatch|torchrun)\b"
)


def blocks(language: str, marked: bool) -> Iterator[Any]:
    """Parameters: the blocks in a language that are marked, or not."""
    for block in BLOCKS:
        if block.language == language and bool(block.marker) == marked:
            yield pytest.param(block, id=str(block))


@pytest.fixture
def page_folder(
    copy_prepared: Callable[[str], Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder of the block's page, which the commands of a page share."""
    folder = copy_prepared(request.node.callspec.params["block"].page)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("block", blocks("bash", marked=False))
def test_commands_run(block: Block, page_folder: Path) -> None:
    for words in block.commands():
        run_command(words)


@pytest.mark.parametrize("block", blocks("bash", marked=True))
def test_marked_commands_compose(
    block: Block, page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    for words in block.commands():
        split = command_and_arguments(words)
        # What a sweep varies, and where it runs, only Hydra and its plugins understand.
        if split and split[0] in OURS and "-m" not in words:
            compose_command(*split)


@pytest.mark.parametrize("block", blocks("python", marked=False))
def test_python_runs(block: Block, page_folder: Path) -> None:
    session = SESSIONS.setdefault(block.page, {"__name__": "__main__"})
    # The lines above keep the numbers of errors those of the page.
    exec(compile("\n" * block.line + block.text, block.page, "exec"), session)


@pytest.mark.parametrize("block", blocks("yaml", marked=False))
def test_yaml_composes(block: Block, page_folder: Path) -> None:
    overlay_file(yaml.safe_load(block.text), page_folder / "own")
    compose("finetune", ["datasets=mine", "experiment=block"], page_folder / "own")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, f"write the language behind ```: {sorted(LANGUAGES)}"
    if block.language == "text":
        hidden = [line for line in block.text.splitlines() if COMMAND_WORDS.match(line)]
        assert not hidden, "a command belongs into a bash block"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_hides_in_an_indented_block(page: Path) -> None:
    lines = prose_of(page).splitlines()
    assert not [line for line in lines if line.startswith("    ") and COMMAND_WORDS.match(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_the_text_exist(page: Path) -> None:
    known = known_settings()
    named = re.findall(rf"`\"?'?(({'|'.join(GROUPS)})\.\w+)", page.read_text(encoding="utf-8"))
    assert {name for name, _ in named} <= known


@pytest.mark.parametrize(
    "file",
    sorted(conf_folder().rglob("*.yaml")),
    ids=lambda file: f"{file.parent.name}/{file.stem}",
)
def test_settings_in_comments_of_conf_exist(file: Path) -> None:
    comments = re.findall(r"#.*", file.read_text(encoding="utf-8"))
    named = re.findall(rf"\b((?:{'|'.join(GROUPS)})\.\w+)[.=]", "\n".join(comments))
    assert {*named} <= known_settings()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_in_the_text_exist(page: Path) -> None:
    folders = "benchmarks|conf|docs|examples|hsf_finetune|tests"
    text = page.read_text(encoding="utf-8")
    for path, name in re.findall(rf"`(?:python )?((?:{folders})/[\w./-]*\w)(?::(\w+))?[` ]", text):
        assert (REPOSITORY / path).exists(), path
        assert not name or name in (REPOSITORY / path).read_text(encoding="utf-8"), (path, name)
    for path, rest in re.findall(r"`python (benchmarks/\w+\.py)([^`]*)`", text):
        flags = [word for word in rest.split() if word.startswith("--")]
        sources = "".join(file.read_text() for file in (REPOSITORY / path).parent.glob("*.py"))
        assert not [flag for flag in flags if f'"{flag}"' not in sources], (path, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path) -> None:
    found = re.findall(r"`((?:python (?:finetune|train)\.py|hsf-finetune) [^`]+)`", prose_of(page))
    for text in found:
        (words,) = commands_of(" ".join(text.split()))
        split = command_and_arguments(words)
        assert split, text
        command, arguments = split
        flags = {word for word in arguments if word.startswith("-")} - {"-m"}
        helped = help_of(command)
        missing = [flag for flag in flags if not re.search(rf"(?<!\S){flag}\b", helped)]
        assert not missing, f"{text}: no {missing}"


# ------------------------------------------------------------------------ YAML
def overlay_file(content: dict[str, Any], folder: Path) -> None:
    """Writes a block as settings over those of `mine`, by the groups its keys belong to.

    Keys of a cohort count for the cohort of `mine`, other keys of datasets for its file.
    """
    if content.keys() <= Settings.model_fields.keys() - {"datasets"}:
        tree = content
    elif content.keys() <= DatasetSettings.model_fields.keys():
        tree = {"datasets": {"datasets": {"tiny": content}}}
    elif content.keys() <= DatasetsSettings.model_fields.keys():
        tree = {"datasets": content}
    else:
        pytest.fail(f"no group of settings has all of {', '.join(content)}")
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    (folder / "datasets").mkdir(exist_ok=True)
    mine = folder.parent / "my_conf" / "datasets" / "mine.yaml"
    (folder / "datasets" / "mine.yaml").write_text(mine.read_text())
    text = "# @package _global_\n" + yaml.safe_dump(tree)
    (folder / "experiment" / "block.yaml").write_text(text)


def known_settings() -> set[str]:
    """Every `group.key` that some shipped file or settings class has."""
    known = {f"datasets.{name}" for name in DatasetsSettings.model_fields}
    known |= {f"preprocessing.{name}" for name in PreprocessingSettings.model_fields}
    for path in conf_folder().glob("*/*.yaml"):
        keys = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        known |= {f"{path.parent.name}.{key}" for key in keys if key != "defaults"}
    known |= {
        f"weights.{name}" for name in ("external_weights_path", "external_weights_key_prefix")
    }
    # What is about weights goes by `finetuning`, too.
    return known | {name.replace("weights.", "finetuning.") for name in known}
