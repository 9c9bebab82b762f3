"""`fleetest completion`: for shells that complete words."""

from __future__ import annotations

import click

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    r"""
    Print a shell's completion script.

    \b
    bash:  fleetest completion bash > ~/.local/share/bash-completion/completions/fleetest
    zsh:   fleetest completion zsh > "${fpath[1]}/_fleetest"
    fish:  fleetest completion fish > ~/.config/fish/completions/fleetest.fish

    Then start a new shell.
    """
    from click.shell_completion import get_completion_class

    from fleetest.client.cli.root import cli

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    click.echo(kind(cli, {}, "fleetest", "_FLEETEST_COMPLETE").source())
