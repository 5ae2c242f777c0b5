"""Search spaces of mobile networks."""
