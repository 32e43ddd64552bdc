"""Which tensor of a checkpoint goes where in a network."""
