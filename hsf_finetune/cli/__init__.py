"""The command `hsf-finetune`: one file per command."""
