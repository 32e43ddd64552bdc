"""`python -m hsf_finetune` is the command `hsf-finetune`."""

from hsf_finetune.cli import main

main()
