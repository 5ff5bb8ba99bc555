"""Baselines: control variates, which lower the variance and never the expectation."""
