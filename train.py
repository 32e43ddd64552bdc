"""Train a network from random weights: python train.py datasets=custom."""

from hsf_finetune.cli.main import launch_or_explain

if __name__ == "__main__":
    launch_or_explain("train")
