"""Kinds of faults that users of this and of similar programs reported, each as a function."""
