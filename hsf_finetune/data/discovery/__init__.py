"""Discovery: the cases that dataset descriptions give."""
