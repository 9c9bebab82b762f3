"""Where the master's blobs are, and who needs them for how long."""
