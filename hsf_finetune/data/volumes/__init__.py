"""Reading volumes with their geometry."""
