"""`python -m fleetest.master`: the master's own commands, without the client."""

from __future__ import annotations

import click

from fleetest.master.commands import down, master, up

__all__ = ["main"]

main = click.Group("fleetest.master", commands=[up, down, master])

if __name__ == "__main__":
    main()
