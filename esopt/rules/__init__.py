"""Rules: gradients to steps."""
