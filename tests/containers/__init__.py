"""Images that are built and used, and what is installed."""
