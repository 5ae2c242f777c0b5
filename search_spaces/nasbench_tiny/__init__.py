"""A space of 27 architectures, for tests."""
