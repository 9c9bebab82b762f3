"""The entry of the `fleetest` command."""

from __future__ import annotations

import os
import sys

from fleetest.common.tuning import hasten, leave

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code; no traceback reaches the user."""
    hasten()
    from fleetest.client.cli.invocation import invoke

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a test's name must not stop us, whatever the locale
    leave(invoke(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
