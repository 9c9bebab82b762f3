from __future__ import annotations

import io

import pytest

from fleetest.client.cli.output import print_table
from fleetest.client.view.harmless import without_colours

ROWS = (
    ("01a1fc2d-5399", "examples/bookshop-with-a-name", "worker local-1 is not ready: the disk is full", "a-host-name"),
    ("01a1fc21-caec", "b", "idle", "vm"),
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(monkeypatch, stream, columns):
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    print_table(("run", "suite", "why", "host"), ROWS, prose=("why",), cut=("suite", "host"), empty="nothing")
    return [line.rstrip() for line in without_colours(stream.getvalue()).splitlines()]


def test_in_a_pipe_a_table_is_as_wide_as_its_content_without_trailing_blanks(monkeypatch):
    lines = printed(monkeypatch, io.StringIO(), 40)

    assert lines == [
        "run            suite                          why                                            host",
        "01a1fc2d-5399  examples/bookshop-with-a-name  worker local-1 is not ready: the disk is full  a-host-name",
        "01a1fc21-caec  b                              idle                                           vm",
    ]


def test_on_a_terminal_prose_goes_on_below_and_names_of_little_weight_are_cut(monkeypatch):
    lines = printed(monkeypatch, Terminal(), 60)

    assert lines == [
        "run            suite                 why         host",
        "01a1fc2d-5399  examples/bookshop-w…  worker      a-host-name",
        "                                     local-1 is",
        "                                     not ready:",
        "                                     the disk",
        "                                     is full",
        "01a1fc21-caec  b                     idle        vm",
    ]


@pytest.mark.parametrize("columns", [80, 60, 40, 10])
def test_an_id_is_whole_in_any_terminal(monkeypatch, columns):
    lines = printed(monkeypatch, Terminal(), columns)

    assert all(any(line.startswith(row[0]) for line in lines) for row in ROWS)
    assert columns < 60 or max(map(len, lines)) <= columns


def test_an_empty_table_is_said_in_words_and_leaves_standard_output_empty(capsys):
    print_table(("run",), [], empty="no runs; begin one with: fleetest run")

    assert capsys.readouterr() == ("", "no runs; begin one with: fleetest run\n")
