"""Jobs of a real SLURM, which a script starts on this machine."""
