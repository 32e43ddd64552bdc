"""The ways in which folders of scans are laid out, one module each."""
