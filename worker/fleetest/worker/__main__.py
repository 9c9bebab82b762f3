"""`python -m fleetest.worker`: the worker's own command, without the client."""

from __future__ import annotations

import click

from fleetest.worker.commands import worker

__all__ = ["main"]

main = click.Group("fleetest.worker", commands=[worker])

if __name__ == "__main__":
    main()
