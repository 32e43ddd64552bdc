"""Scores, intervals over subjects, and models side by side."""
