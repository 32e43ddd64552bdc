"""A schedule as a table, as characters and as a picture."""
