"""Coordination in Redis: the task queue, the worker registry and the feed of commits. All of it can be rebuilt."""
