"""Estimators: evaluations to a gradient of the smoothed objective, with error bars."""
