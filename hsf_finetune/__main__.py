"""`python -m hsf_finetune` is the command `hsf-finetune`."""

from hsf_finetune.cli.main import main

main()
