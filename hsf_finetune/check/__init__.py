"""Checks of the data before training: each case, the cases together, and the source model."""
