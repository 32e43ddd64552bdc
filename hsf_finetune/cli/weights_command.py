"""List the published weights that have a name, or say all about one of them.

    hsf-finetune weights
    hsf-finetune weights suprem_unet

A name is what finetuning.pretrained takes, as `predict` does: weights, network, classes and how
scans are prepared come with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("name", nargs="?", help="one of them")
    parser.add_argument("--config-dir", type=Path, help="a folder with names of your own")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from hsf_finetune.config.conf_files import own_folder
    from hsf_finetune.config.named_weights import named_weights
    from hsf_finetune.data.preprocessing.describe_preprocessing import describe_preprocessing
    from hsf_finetune.networks.pretrained_network import override_line
    from hsf_finetune.system.console import TitledTable, console, say
    from hsf_finetune.system.errors import ConfigError
    from hsf_finetune.weights.sources.remote import describe_named

    known = named_weights(own_folder(options.config_dir))
    if options.name is None:
        table = TitledTable("named weights", "hsf-finetune weights NAME says more of one")
        for title in ("finetuning.pretrained=", "weights", "network", "licence"):
            table.add_column(title)
        for name, named in known.items():
            licence = "; ".join([named.licence, *named.conditions])
            table.add_row(name, named.name, named.models.name, licence)
        console.print(table)
        return 0
    if options.name not in known:
        raise ConfigError(
            f"there are no weights called '{options.name}'",
            expected=", ".join(known),
            fix="weights of your own are shown by hsf-finetune plan, and by advise: "
            "datasets=DATASET finetuning.pretrained=PATH",
        )
    named = known[options.name]
    say(f"{options.name}: {named.name}")
    for line in describe_named(named):
        say(line)
    say(f"  address: {named.url or 'none; give the file with weights.file=PATH'}")
    say(f"  network: {override_line(named.models.model_dump(exclude_unset=True))}")
    if named.load != "all":
        say(f"  loaded: {named.load}")
    scans = named.preprocessing and describe_preprocessing(named.preprocessing)
    listed = "; ".join(f"{part}: {text}" for part, text in (scans or {}).items())
    say(f"  scans: {listed or 'as the file says'}")
    return 0
