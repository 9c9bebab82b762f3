"""Reports about an ended run, for other programs to read."""
