"""A disk that fills up at any point of a command gives one message and no half-written file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import CONF, FAST

# Python ignores SIGXFSZ, so that a file beyond the limit fails with EFBIG: the code path
# of a full disk, without filling one.
SCRIPT = """
import json, resource, sys
import hsf_finetune.experiment.run  # what is imported must not count
from hsf_finetune.cli.main import main

for limit, arguments in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        main(arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code
    print(f"exit code {code}", file=sys.stderr, flush=True)
"""


EXPORTS = ("to_checkpoint", "to_bundle", *(["to_onnx"] if find_spec("onnx") else []))
COMMANDS = ("first file", "checkpoint", "cache", "predict", "scores", "phantom", *EXPORTS)


@pytest.fixture(scope="module")
def stopped(
    source_run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Path]]:
    """Command -> what it said, and the folder it wrote to."""
    pytest.importorskip("resource", reason="file size limits are a Unix feature")
    root = tmp_path_factory.mktemp("full")
    (root / "tmp").mkdir()
    scan, label = (data / "tiny" / "sub-01" / f"sub-01_{k}.nii.gz" for k in ("T2w", "dseg"))

    def train(name: str, *overrides: str) -> list[str]:
        where = [f"datasets.main_path={data}", f"datasets.output_path={root / name}"]
        tiny = ["train", "--config-dir", str(CONF), "datasets=tiny", "lightning.max_epochs=2"]
        return [*tiny, *where, *FAST, *overrides]

    commands = {
        "first file": (300, train("first file")),
        "checkpoint": (40_000, train("checkpoint")),
        "cache": (
            9_000,
            train("cache", "datasets.cache=disk", f"datasets.cache_dir={root / 'tmp'}"),
        ),
        "predict": (100, ["predict", str(source_run), str(scan), "-o", str(root / "predict")]),
        "scores": (50, ["evaluate", str(label), str(label), "-o", str(root / "scores" / "a.csv")]),
        "phantom": (9_000, ["phantom", str(root / "phantom")]),
    }
    for door in EXPORTS:
        to = ["--to", door.removeprefix("to_"), "-o", str(root / door), "--no-proof"]
        commands[door] = (2_000, ["export", str(source_run), *to])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([*commands.values()])],
        env={**os.environ, "TMPDIR": str(root / "tmp"), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list((root / "tmp").iterdir()), "nothing is left where temporary files go"
    texts = done.stderr.split("exit code ")
    codes = [text.splitlines()[0] for text in texts[1:]]
    assert codes == ["2"] * len(commands), done.stderr
    said = [texts[0], *(text.partition("\n")[2] for text in texts[1:-1])]
    return {name: (text, root / name) for name, text in zip(commands, said, strict=True)}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_one_message_that_names_reason_and_fix(
    command: str, stopped: dict[str, tuple[str, Path]]
) -> None:
    text, _ = stopped[command]
    assert text.count("error: ") == 1, text
    assert "Traceback" not in text
    # PyTorch's own writer keeps the system's reason to itself.
    own = ("cache", "to_checkpoint", "to_bundle")
    reason = "only a part could be written" if command in own else "File too large"
    assert text.count(reason) == 1, text
    assert text.count("fix: ") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_file_that_is_left_is_whole(
    command: str, stopped: dict[str, tuple[str, Path]]
) -> None:
    _, folder = stopped[command]
    for path in folder.rglob("*"):
        assert ".partial" not in path.name
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".yaml":
            yaml.safe_load(path.read_text())
        if path.suffix == ".ckpt":
            torch.load(path, weights_only=True)


def test_what_could_not_be_begun_leaves_no_folder(stopped: dict[str, tuple[str, Path]]) -> None:
    assert not list(stopped["first file"][1].iterdir())
    for command in ("cache", "predict", "scores", *EXPORTS):
        folder = stopped[command][1]
        assert not folder.exists() or not list(folder.iterdir())


def test_a_stopped_run_can_be_resumed(stopped: dict[str, tuple[str, Path]]) -> None:
    (run,) = stopped["checkpoint"][1].iterdir()
    assert (run / "config.yaml").exists()
    assert not (run / "result.json").exists()
    assert not list(run.rglob("*.ckpt"))
