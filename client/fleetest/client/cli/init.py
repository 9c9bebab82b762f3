"""`fleetest init`: a suite to start with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fleetest.client.cli.connecting import say
from fleetest.common.errors import AlreadyExists, InvalidRequest

__all__ = ["init"]

_SUITE = Path("fleetest.yaml")


@click.command()
@click.option(
    "--openapi",
    "document",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="An OpenAPI 3 document: every operation becomes a REST check.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("tests/api"),
    show_default=True,
    metavar="DIRECTORY",
    help="Where the checks are written.",
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
def init(*, document: Path, directory: Path, force: bool) -> None:
    """
    Write a suite to start with, made from an OpenAPI document.

    There is a file of checks for each tag, and a fleetest.yaml that runs them, unless there is one already.
    """
    from fleetest.client.openapi.checks import checks_of, suite_of
    from fleetest.client.openapi.document import read_document

    if directory.is_absolute() or ".." in directory.parts or not document.resolve().is_relative_to(Path.cwd()):
        raise InvalidRequest(
            "the document and the checks must lie below this directory",
            hint="They are sent to workers with it. Change to the project's directory, or copy the document there.",
        )
    content = read_document(document)
    location = Path(os.path.relpath(document.resolve(), directory.resolve())).as_posix()
    files = {directory / name: text for name, text in checks_of(content, location=location).items()}
    if not files:
        raise InvalidRequest(f"{document} describes no operations")
    if (there := [str(path) for path in files if path.exists()]) and not force:
        raise AlreadyExists(f"{', '.join(there)} would be written over", hint="Use --force, or another --directory.")
    if not _SUITE.exists():
        files[_SUITE] = suite_of(content, directory=directory.as_posix())
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
        say(f"wrote {path}")
    say("Look at the values that stand in for yours, then: fleetest run")
