"""Operators that know nothing of modalities."""
