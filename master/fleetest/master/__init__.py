"""The master: registry, queue, dispatcher, runs and their log."""
