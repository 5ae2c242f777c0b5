"""Searches on a table of results that learn to predict it: WeakNAS and CTNAS."""
