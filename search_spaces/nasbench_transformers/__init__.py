"""Search spaces of vision transformers."""
