"""Borrowed from C: declarations only, no logic."""
