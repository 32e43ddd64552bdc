"""Everything that is decided before the first step of training."""
