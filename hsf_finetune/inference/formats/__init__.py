"""The formats in which segmentations are written."""
