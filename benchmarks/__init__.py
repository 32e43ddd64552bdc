"""Scripts that measure what the README and the documentation quote."""
