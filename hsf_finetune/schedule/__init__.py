"""Which block trains when, and at which rate."""
