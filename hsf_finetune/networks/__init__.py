"""Networks and the names of their parts."""
