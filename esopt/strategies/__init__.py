"""Strategies: search distributions that learn from the values of their candidates."""
