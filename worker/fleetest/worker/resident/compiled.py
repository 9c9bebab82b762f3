"""
Remembers what modules were compiled to, by content: a workspace is new in each run, and what Python and pytest keep
beside the sources is gone with it.

Two steps are looked up. What Python compiles the bytes of a module to, where it has found no valid `.pyc`; and what
pytest compiles those of a test module to, whose assertions it rewrites. Both depend on the bytes, on what is in the
name besides, and on the path, which importlib's own function exchanges. All around them happens as ever: Python and
pytest look for what they keep themselves before, and write it after. Sizes and times of files say nothing here.

Not kept is what says something while it is compiled, since a warning may be an error to the next session, and what
others than Python and pytest have a hand in. Where anything is not as expected, it is as if this module were not there.
"""

from __future__ import annotations

import _imp
import ast
import builtins
import importlib.machinery
import importlib.util
import marshal
import os
import sys
import types
import warnings
from pathlib import PosixPath
from typing import Any, List, NamedTuple, Tuple

__all__ = ["Compiled"]

_FORMAT = 1
_ORDINARY, _WITH_STATUS, _WITH_HASH = b"o", b"s", b"h"  # what an entry begins with
_IMPORTLIB = "<frozen importlib._bootstrap_external>"
# Looked up now: tests may replace anything.
_fix_path: Any = vars(_imp).get("_fix_co_filename")  # as importlib does with what it loads
_stat, _dumps, _loads, _source_hash = os.stat, marshal.dumps, marshal.loads, importlib.util.source_hash


class _Listener:
    """Stands among the filters of warnings, as a pattern that hears of each and matches none."""

    def __init__(self) -> None:
        self.has_heard = False
        self._filter = ("ignore", self, Warning, None, 0)

    def match(self, text: str) -> bool:
        del text
        self.has_heard = True
        return False

    def __enter__(self) -> _Listener:
        found: Any = getattr(warnings, "filters", None)
        self.has_heard = type(found) is not list  # nobody knows, then
        self._filters: List[Any] = [] if self.has_heard else found
        self._filters.insert(0, self._filter)
        return self

    def __exit__(self, *_: object) -> None:
        self._filters[:] = [each for each in self._filters if each is not self._filter]


class _Source(PosixPath):
    """A path whose content has been read: what is made of it is made of these bytes."""

    content = b""
    reads = 0

    def read_bytes(self) -> bytes:
        self.reads += 1
        return self.content


class _Part(NamedTuple):
    """What has a hand in the result. Others may put their own in its place."""

    owner: Any
    name: str
    value: Any

    def is_there(self) -> bool:
        return self.owner.get(self.name) is self.value


class Compiled:
    """
    Args:
        stored: the module of that name, which is in no `sys.modules`.
        directory: where it is kept.
    """

    def __init__(self, stored: Any, directory: str) -> None:
        self._store = stored.Store(directory)
        self._digest = stored.digest
        self._interpreter = _interpreter()
        self._parts = [_Part(vars(builtins), "compile", compile), _Part(vars(ast), "parse", ast.parse)]
        # Filters of a context come before those among which a listener stands.
        self._hears_all = not getattr(sys.flags, "context_aware_warnings", False)

    def put_into_importlib(self) -> None:
        """From now on a module is looked up before Python compiles it."""
        loader = importlib.machinery.SourceFileLoader
        original: Any = loader.source_to_code
        if getattr(getattr(original, "__code__", None), "co_filename", "") != _IMPORTLIB:
            return

        def source_to_code(self_: Any, data: Any, path: Any, *more: Any, **options: Any) -> Any:
            name = "" if more or options else self._name([_ORDINARY], data)
            code = self._found(name, path)[1]
            if code is None:
                with _Listener() as listener:
                    code = original(self_, data, path, *more, **options)
                self._keep(name, _ORDINARY, code, listener)
            return code

        # Python leaves importlib's frames out of tracebacks, if there is no other among them.
        source_to_code.__code__ = source_to_code.__code__.replace(co_filename=_IMPORTLIB)
        loader.source_to_code = source_to_code  # type: ignore[method-assign,assignment]

    def put_into_pytest(self, rewrite: Any) -> None:
        """
        From now on a test module is looked up before pytest rewrites it.

        Args:
            rewrite: the module `_pytest.assertion.rewrite`, whatever is in it.
        """
        try:
            original = rewrite._rewrite_test  # noqa: SLF001 - pytest offers no other way
            version = self._digest(_content(rewrite.__file__)).hex()
            owners = vars(rewrite), vars(rewrite.AssertionRewriter)
        except (AttributeError, TypeError, OSError):
            return
        parts = [_Part(owner, name, value) for owner in owners for name, value in owner.items()]
        self._parts += [part for part in parts if part.value is not original]

        def rewrite_test(fn: Any, config: Any) -> Any:
            __tracebackhide__ = True
            name, status, source = self._look_at(fn, config, version)
            kind, code = self._found(name, str(fn))
            if code is not None:
                return (status if kind == _WITH_STATUS else _source_hash(source.content)), code
            with _Listener() as listener:
                made = original(source, config)
            self._keep(name, _kind(made, source), made[-1], listener)
            return made

        rewrite._rewrite_test = rewrite_test  # noqa: SLF001 - likewise

    def _look_at(self, fn: Any, config: Any, version: str) -> Tuple[str, Any, Any]:
        """Name, status and content of a test module; its path as it is when pytest had better see for itself."""
        try:
            status = _stat(fn)
            source = _Source(fn)
            source.content = fn.read_bytes()
            hooked = bool(config.getini("enable_assertion_pass_hook"))
        except Exception:  # noqa: BLE001 - pytest says what is wrong
            return "", None, fn
        return self._name(["rewritten", version, hooked], source.content), status, source

    def _name(self, details: List[Any], source: Any) -> str:
        """Of what a source is compiled to; empty when that is neither looked up nor kept."""
        if type(source) is not bytes or not all(part.is_there() for part in self._parts):
            return ""
        digits = getattr(sys, "get_int_max_str_digits", int)()
        key = repr([self._interpreter, digits, details, self._digest(source)])
        return str(self._digest(key.encode("ascii", "backslashreplace")).hex())

    def _found(self, name: str, path: Any) -> Tuple[bytes, Any]:
        content = self._store.get(name) if name else None
        if content is None:
            return b"", None
        try:
            code = _loads(content[1:])
            _fix_path(code, path)
        except Exception:  # noqa: BLE001 - it is compiled anew, then
            return b"", None
        return content[:1], code

    def _keep(self, name: str, kind: bytes, code: Any, listener: _Listener) -> None:
        if not name or not kind or listener.has_heard or not self._hears_all or type(code) is not types.CodeType:
            return
        try:
            content = kind + _dumps(code)
        except ValueError:  # a constant that cannot be written
            return
        self._store.put(name, content)


def _kind(made: Any, source: Any) -> bytes:
    """By what pytest knows the source, beside the code: versions differ. Empty when it is made of something else."""
    if type(source) is not _Source or source.reads != 1:
        return b""
    known_by, _ = made
    if isinstance(known_by, os.stat_result):
        return _WITH_STATUS
    return _WITH_HASH if known_by == _source_hash(source.content) else b""


def _interpreter() -> List[Any]:
    """What the compiler's work depends on besides the source."""
    code: Any = compile("x", "x", "eval")
    positions = list(code.co_positions()) if hasattr(code, "co_positions") else []  # may be left out
    return [_FORMAT, sys.version, sys.implementation.cache_tag, importlib.util.MAGIC_NUMBER, repr(sys.flags), positions]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
