"""Spaces whose networks repeat a searched cell, and tables about them."""
