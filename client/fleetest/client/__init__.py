"""The Python client and the `fleetest` command."""
