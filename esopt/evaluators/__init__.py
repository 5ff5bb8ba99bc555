"""Evaluators: populations to values."""
