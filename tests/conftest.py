"""Settings for the whole suite: property tests draw the same examples in every run, and compiling may take its time."""

import signal

from hypothesis import settings

settings.register_profile("esopt", deadline=None, derandomize=True, database=None)
settings.load_profile("esopt")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and their children after them, which tests of Ctrl-C would wait for.
    signal.signal(signal.SIGINT, signal.default_int_handler)
