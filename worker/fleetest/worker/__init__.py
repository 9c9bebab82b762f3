"""The worker: an agent that pulls shards, executes them and reports."""
