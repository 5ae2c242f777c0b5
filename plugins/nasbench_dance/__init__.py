"""DANCE, which learns what channels each layer keeps, and the baselines it is compared with."""
