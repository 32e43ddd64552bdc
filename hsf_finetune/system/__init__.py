"""Errors, files, the console, processes: what every room stands on."""
