"""How good a segmentation is expected to be, and which scan a person should look at next."""
