"""Fine-tune a pretrained network: python finetune.py datasets=custom finetuning.out_channels=8."""

from hsf_finetune.cli.main import launch_or_explain

if __name__ == "__main__":
    launch_or_explain("finetune")
