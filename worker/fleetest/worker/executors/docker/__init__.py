"""Runs tasks in hardened containers of a Docker Engine."""
