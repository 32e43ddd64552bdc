"""A run from start to end: discover, prepare, fit, compare."""
