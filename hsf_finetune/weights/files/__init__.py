"""Reading checkpoint files without running anything in them."""
