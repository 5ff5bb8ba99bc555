"""Adapters: functions written for other libraries, as objectives with derivatives."""
