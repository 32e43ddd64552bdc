"""From a dataset description to cases: which files belong together."""
