"""A trained model in the form of other programs, each export proved in the program's own runtime."""
