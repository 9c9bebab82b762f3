"""Kinds of tests: one runner each."""
