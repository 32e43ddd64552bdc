"""What the data look like before anything is computed from them."""
