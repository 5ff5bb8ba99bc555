"""Settings for the whole suite: property tests draw the same examples in every run, and compiling may take its time."""

from hypothesis import settings

settings.register_profile("esopt", deadline=None, derandomize=True, database=None)
settings.load_profile("esopt")
