"""Samplers: the joint law of the noise rows."""
