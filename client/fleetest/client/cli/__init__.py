"""The `fleetest` command."""
