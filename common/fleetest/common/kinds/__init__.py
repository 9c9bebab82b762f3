"""Kinds of tests: what a task of each may say in `fleetest.yaml`, and what a worker is to do for it."""
