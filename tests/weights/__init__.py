"""Tests of the weights."""
