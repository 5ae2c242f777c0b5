"""Elastic architecture search: once-for-all supernets, and architectures for superclasses and budgets."""
