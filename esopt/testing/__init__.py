"""Public conformance suites for parts of one's own."""
