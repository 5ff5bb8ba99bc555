"""Policies, rollouts and training on gymnasium environments."""
