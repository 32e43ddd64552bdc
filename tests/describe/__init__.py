"""Tests of init: from folders to dataset YAMLs."""
