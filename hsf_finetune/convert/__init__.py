"""Datasets, splits and plans in the form of nnU-Net, and nnU-Net's plans as settings."""
