"""Ways to run things: one module per executor."""
