"""From a volume in its file to the network's grid, and back."""
