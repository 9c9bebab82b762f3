"""`fleetest schema`: for editors that complete and check YAML."""

from __future__ import annotations

import click

__all__ = ["schema"]


@click.command()
def schema() -> None:
    """
    Print the JSON Schema of suite files.

    Save it, and begin a suite with `# yaml-language-server: $schema=./fleetest.schema.json`.
    """
    from fleetest.client.cli.output import print_json
    from fleetest.common.suite import suite_schema

    print_json(suite_schema())
