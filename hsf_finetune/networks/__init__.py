"""Networks and their anatomy."""
