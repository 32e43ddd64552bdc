"""Describes a folder of images and labels by the dataset YAML that finds its cases."""
