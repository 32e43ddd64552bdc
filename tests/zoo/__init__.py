"""A zoo of defects: clean volumes, damaged one way at a time."""
