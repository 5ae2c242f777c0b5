"""Search without a supernet of its own: on a table, or as a modifier that selects from what was trained."""
