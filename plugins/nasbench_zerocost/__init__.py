"""Training-free rankings: an architecture is judged by its untrained network, or by what it costs."""
