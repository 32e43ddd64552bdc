"""Reading volumes, and where they lie in space."""
