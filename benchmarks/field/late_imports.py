"""Imports what commands import late, for a process that is forked for each of them."""

from __future__ import annotations

import hsf_finetune.check.case_pictures
import hsf_finetune.describe.describe_folder
import hsf_finetune.experiment.run  # noqa: F401
from field.workbench import run_command

run_command("plan", "datasets=phantom", "datasets.generate=null", "datasets.main_path=nowhere")
