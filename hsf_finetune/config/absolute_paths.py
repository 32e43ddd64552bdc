"""Paths of settings from the root, so that they mean the same from any working directory."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from hsf_finetune.config.settings import Settings
from hsf_finetune.system.urls import is_remote


def with_absolute_paths(settings: Settings) -> Settings:
    """The same settings, which then mean the same from any working directory."""

    def absolute(path: str | None, *words: str) -> str | None:
        return path if path is None or path in words else str(Path(path).expanduser().absolute())

    data, weights = settings.datasets, settings.weights
    pretrained = weights.pretrained
    if weights.named is None and not is_remote(pretrained or ""):
        pretrained = absolute(pretrained, "none", "demo")
    names = ("main_path", "output_path", "split_file", "cache_dir")
    paths: dict[str, object] = {n: absolute(getattr(data, n)) for n in names}
    paths["unlabelled"] = [_place(str(paths["main_path"]), entry) for entry in data.unlabelled]
    tuning = settings.finetuning
    if tuning.selftrain is not None:
        given = [
            str(Path(t).absolute()) if Path(t).exists() else t for t in tuning.selftrain.teacher
        ]
        selftrain = tuning.selftrain.model_copy(update={"teacher": given})
        tuning = tuning.model_copy(update={"selftrain": selftrain})
    return settings.model_copy(
        update={
            "run_dir": absolute(settings.run_dir),
            "resume": absolute(settings.resume, "auto"),
            "datasets": data.model_copy(update=paths),
            "finetuning": tuning,
            "weights": weights.model_copy(
                update={"pretrained": pretrained, "file": absolute(weights.file)}
            ),
        }
    )


# -------------------------------------------------------------------- internals
def _place(main_path: str, entry: str) -> str:
    """Paths of scans, joined by commas, from `main_path` where they exist there, else from here."""

    def locate(part: str) -> str:
        path = Path(part).expanduser()
        fixed = Path(*takewhile(lambda name: not set(name) & {*"*?["}, path.parts))
        known = fixed.parts and (Path(main_path) / fixed).exists()
        return str(Path(main_path) / path if known else path.absolute())

    parts = [entry] if Path(entry).expanduser().exists() else entry.split(",")
    return ",".join(map(locate, parts))
