"""Naive twins: slow, obvious versions of what the package computes fast."""
