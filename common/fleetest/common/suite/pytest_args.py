"""
What a task's pytest arguments mean on a cluster.

Each falls into one of four classes: it becomes a setting of the task (`-x`, `--maxfail`, `--lf`); it is dropped, since
the cluster does what it asks for (`-n`); it is refused, since it has no meaning for cases that run in many sessions;
or it is passed on untouched, as everything is that follows `--`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fleetest.common.suite.problems import Fault

__all__ = ["PytestArgs", "interpret_pytest_args"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestArgs:
    """
    Arguments, interpreted.

    Args:
        args: what is left for pytest itself.
        maxfail: `None` when the arguments don't say.
        faults: what is refused; each path is the argument's index.
    """

    args: tuple[str, ...]
    maxfail: int | None = None
    last_failed: bool = False
    faults: tuple[Fault, ...] = ()


_TERMINAL: Final = "Run it with plain pytest, on this machine."
_NO_RUN: Final = "It runs no tests: use plain pytest for it."
_ORDER: Final = (
    "The cluster decides the order. Use `--lf` to run only what failed the last time, or `-x` to stop early."
)
_REPORT: Final = "Each session would write its own part: use `fleetest run --junit FILE` or `--json FILE`."
_CACHE: Final = "What failed the last time is kept by the cluster, not in pytest's cache."

_REFUSED: Final = {
    **dict.fromkeys(("--pdb", "--trace", "--pdbcls", "--looponfail"), _TERMINAL),
    **dict.fromkeys(("--collect-only", "--collectonly", "--co", "--fixtures", "--funcargs"), _NO_RUN),
    **dict.fromkeys(("--fixtures-per-test", "--markers", "--setup-plan", "--setuponly", "--setup-only"), _NO_RUN),
    **dict.fromkeys(("--version", "--help", "--cache-show"), _NO_RUN),
    **dict.fromkeys(("--ff", "--failed-first", "--nf", "--new-first"), _ORDER),
    **dict.fromkeys(("--sw", "--stepwise", "--sw-skip", "--stepwise-skip", "--sw-reset", "--stepwise-reset"), _ORDER),
    **dict.fromkeys(("--junitxml", "--junit-xml", "--report-log"), _REPORT),
    **dict.fromkeys(("--lfnf", "--last-failed-no-failures"), _CACHE),
}
_DROPPED_FLAGS: Final = frozenset({"--no-loadscope-reorder", "--loadscope-reorder"})
_DROPPED_WITH_VALUE: Final = frozenset({
    "--numprocesses", "--maxprocesses", "--max-worker-restart", "--dist", "--tx", "--px", "--rsyncdir",
    "--rsyncignore", "--testrunuid",
})  # fmt: skip

# One-letter options of pytest and xdist. Other letters belong to plugins; what follows such a letter is left alone.
_LETTERS_ALONE: Final = frozenset("vqsl")
_LETTERS_WITH_VALUE: Final = frozenset("kmcoprW")
_LETTERS_REFUSED: Final = {"f": _TERMINAL, "h": _NO_RUN, "V": _NO_RUN}


def interpret_pytest_args(args: Sequence[str]) -> PytestArgs:
    """Sort arguments, given as pytest's command line takes them, into what they mean for a task."""
    return _Interpreter(args).run()


@dataclass(slots=True)
class _Interpreter:
    given: Sequence[str]
    kept: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    maxfail: int | None = None
    last_failed: bool = False
    index: int = 0

    def run(self) -> PytestArgs:
        while self.index < len(self.given):
            argument = self.given[self.index]
            if argument == "--":
                self.kept += self.given[self.index :]
                break
            if argument.startswith("--"):
                self._long(argument)
            elif argument.startswith("-") and len(argument) > 1:
                self._letters(argument)
            else:
                self.kept.append(argument)
            self.index += 1
        return PytestArgs(
            args=tuple(self.kept), maxfail=self.maxfail, last_failed=self.last_failed, faults=tuple(self.faults)
        )

    def _long(self, argument: str) -> None:
        name, equals, value = argument.partition("=")
        if name == "--exitfirst":
            self.maxfail = 1
        elif name == "--maxfail":
            self._maxfail(value if equals else self._next_value(name))
        elif name in {"--lf", "--last-failed"}:
            self.last_failed = True
        elif name in _REFUSED:
            self._refuse(name, _REFUSED[name])
        elif name in _DROPPED_WITH_VALUE:
            if not equals:
                self._next_value(name)
        elif name not in _DROPPED_FLAGS:
            self.kept.append(argument)

    def _letters(self, argument: str) -> None:
        """Letters of one argument, as in `-xvs` or `-xkslow`."""
        kept = ""
        for position, letter in enumerate(argument[1:], start=1):
            rest = argument[position + 1 :]
            if letter == "x":
                self.maxfail = 1
            elif letter == "n":
                if not rest:
                    self._next_value("-n")
                break
            elif letter in _LETTERS_REFUSED:
                self._refuse(f"-{letter}", _LETTERS_REFUSED[letter])
            elif letter in _LETTERS_ALONE:
                kept += letter
            elif letter != "d":  # xdist's short form of --dist=load
                kept += letter + rest
                self._keep(kept, takes_next=letter in _LETTERS_WITH_VALUE and not rest)
                return
        self._keep(kept, takes_next=False)

    def _keep(self, letters: str, *, takes_next: bool) -> None:
        if letters:
            self.kept.append(f"-{letters}")
        if takes_next:
            self.kept += self.given[self.index + 1 : self.index + 2]
            self.index += 1

    def _next_value(self, name: str) -> str:
        if self.index + 1 >= len(self.given):
            self._refuse(name, f"Write it as {name} VALUE.", why="needs a value")
            return "0"
        self.index += 1
        return self.given[self.index]

    def _maxfail(self, value: str) -> None:
        if value.isascii() and value.isdecimal() and len(value) < 10:  # noqa: PLR2004 - fits 32 bits
            self.maxfail = int(value)
        else:
            self._refuse("--maxfail", "As in --maxfail=3.", why=f"needs a number, not '{value[:50]}'")

    def _refuse(self, name: str, hint: str, *, why: str = "makes no sense on a cluster") -> None:
        self.faults.append(Fault(message=f"pytest's {name} {why}", hint=hint, path=(self.index,)))
