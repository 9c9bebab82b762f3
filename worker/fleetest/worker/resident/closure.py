"""
Which files a Python file may load, as far as its text tells: the files that it imports, those that these import, and
so on.

Everything that stands in the text counts, whatever condition it stands under, functions included. Names are looked up
as the running interpreter would, without importing anything new. What belongs to the interpreter, or is installed, is
left out: it is known by its version. A file that imports by a name which the text does not hold is *open*: it may load
anything that there is.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

__all__ = ["Closure", "Closures", "Places"]

# Calls that import what their first argument names, and calls that run code from who knows where.
_IMPORTING = {"import_module": 0, "__import__": 0, "importorskip": 0, "run_module": 0}
_OPAQUE = frozenset(
    ("exec", "spec_from_file_location", "load_source", "run_path", "SourceFileLoader", "walk_packages", "iter_modules")
)
_INSTALLED = ("site-packages", "dist-packages")


class Closure(NamedTuple):
    """`open` is whether it may load other files, too."""

    files: FrozenSet[str]
    open: bool


class _Found(NamedTuple):
    """Where a module is: its file, if it has one, and where its submodules are, if it can have some."""

    file: Optional[str]
    locations: Tuple[str, ...]


class _Text(NamedTuple):
    """What a file's text asks for: dotted names, with the dots of relative ones in front; `*` ends a star import."""

    names: Tuple[str, ...]
    open: bool


class Places:
    """Tells our own files from those of the interpreter and of installed distributions."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        self.standard = {os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib")}
        installed = {paths["purelib"], paths["platlib"]}
        installed.update(getattr(site, "getsitepackages", list)())
        if site.ENABLE_USER_SITE:
            installed.add(site.getusersitepackages())
        installed.update(path for path in sys.path if os.path.basename(path) in _INSTALLED)
        self.installed = {os.path.realpath(path) for path in installed}
        self._known: Dict[str, bool] = {}

    def is_own(self, file: str) -> bool:
        """Whether a file is neither the interpreter's nor installed."""
        if file not in self._known:
            real = os.path.realpath(file)
            self._known[file] = not any(real.startswith(place + os.sep) for place in self.installed | self.standard)
        return self._known[file]


class Closures:
    """Answers closures; remembers what it has read."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._modules: Dict[str, Optional[_Found]] = {}
        self._direct: Dict[str, Closure] = {}

    def of(self, roots: Iterable[str]) -> Closure:
        """The closure of these files together, themselves included."""
        seen: Set[str] = set()
        waiting = [os.path.realpath(root) for root in roots]
        is_open = False
        while waiting:
            file = waiting.pop()
            if file in seen:
                continue
            seen.add(file)
            direct = self._loads(file)
            is_open = is_open or direct.open
            waiting.extend(direct.files - seen)
        return Closure(frozenset(seen), is_open)

    def _loads(self, file: str) -> Closure:
        if file not in self._direct:
            text = _read(file)
            files = set(_packages(file))
            for name in text.names:
                files.update(self._named(file, name))
            self._direct[file] = Closure(frozenset(files - {file}), text.open)
        return self._direct[file]

    def _named(self, file: str, name: str) -> Iterator[str]:
        """The files that importing this name loads: of each package on the way, and of the module."""
        bare = name.lstrip(".")
        level = len(name) - len(bare)
        parts = bare.split(".") if bare else []
        found: Optional[_Found] = None
        if level:
            directory = os.path.dirname(file)
            for _ in range(level - 1):
                directory = os.path.dirname(directory)
            found = _Found(None, (directory,))
        for number, part in enumerate(parts):
            if part == "*":
                yield from self._submodules(found)
                return
            if found is None and not level and number == 0:
                found = self._top(part)
            elif found is not None:
                found = self._below(found, part)
            if found is None:
                return
            if found.file is not None:
                if not self._places.is_own(found.file):
                    return
                yield os.path.realpath(found.file)

    def _submodules(self, package: Optional[_Found]) -> Iterator[str]:
        """All that `from package import *` may load: its `__all__` may name submodules."""
        for place in package.locations if package is not None else ():
            try:
                entries = sorted(os.listdir(place))
            except OSError:
                continue
            for entry in entries:
                found = self._below(_Found(None, (place,)), entry.partition(".")[0])
                if found is not None and found.file is not None and self._places.is_own(found.file):
                    yield os.path.realpath(found.file)

    def _top(self, name: str) -> Optional[_Found]:
        if name not in self._modules:
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError, AttributeError):
                spec = None
            self._modules[name] = _found(spec, sys.modules.get(name))
        return self._modules[name]

    def _below(self, package: _Found, name: str) -> Optional[_Found]:
        if not package.locations or not name.isidentifier():
            return None
        key = os.pathsep.join((*package.locations, name))
        if key not in self._modules:
            try:
                spec = importlib.machinery.PathFinder.find_spec(name, list(package.locations))
            except (ImportError, ValueError, AttributeError):
                spec = None
            self._modules[key] = _found(spec, None)
        return self._modules[key]


def _found(spec: Any, module: Any) -> Optional[_Found]:
    """A module that has been imported may say better than its spec where it is."""
    file = _file_of(module) or (spec.origin if spec is not None and spec.has_location else None)
    locations = _path_of(module) or tuple((spec.submodule_search_locations or ()) if spec is not None else ())
    if file is None and not locations:
        return None  # built in, or nowhere
    return _Found(file, locations)


def _file_of(module: Any) -> Optional[str]:
    try:
        file = module.__file__
    except Exception:  # noqa: BLE001 - a module may be any object, and its attributes may do anything
        return None
    return file if isinstance(file, str) else None


def _path_of(module: Any) -> Tuple[str, ...]:
    try:
        return tuple(str(place) for place in module.__path__)
    except Exception:  # noqa: BLE001 - likewise
        return ()


def _packages(file: str) -> Iterator[str]:
    """The packages that a module is in: importing it imports them before."""
    directory = os.path.dirname(file)
    while True:
        package = os.path.join(directory, "__init__.py")
        if not os.path.isfile(package):
            return
        yield os.path.realpath(package)
        directory = os.path.dirname(directory)


def _read(file: str) -> _Text:
    if not file.endswith((".py", ".pyw", ".pyi")):
        # Compiled code may import anything; so may the examples in a text.
        return _Text(names=(), open=True)
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read(), file)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return _Text(names=(), open=True)
    reader = _Reader()
    reader.read(tree)
    return _Text(tuple(reader.names), reader.open)


class _Reader:
    """Collects what a text asks for."""

    def __init__(self) -> None:
        self.names: Dict[str, None] = {}
        self.open = False
        self._calls: List[ast.Call] = []
        self._aliases: Dict[str, str] = {}

    def read(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.names[alias.name] = None
            elif isinstance(node, ast.ImportFrom):
                self._read_from(node)
            elif isinstance(node, ast.Call):
                self._calls.append(node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                self._read_plugins(node)
        for call in self._calls:
            self._read_call(call)

    def _read_from(self, node: ast.ImportFrom) -> None:
        base = "." * node.level + (node.module or "")
        self.names[base] = None
        for alias in node.names:
            joint = "" if base.endswith(".") or not base else "."
            self.names[base + joint + alias.name] = None
            if alias.name in _IMPORTING or alias.name in _OPAQUE:
                self._aliases[alias.asname or alias.name] = alias.name

    def _read_plugins(self, node: Any) -> None:
        """`pytest_plugins` names modules that pytest imports."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == "pytest_plugins" for target in targets):
            literals = [each for each in ast.walk(node) if isinstance(each, ast.Constant)]
            self.names.update((each.value, None) for each in literals if isinstance(each.value, str))

    def _read_call(self, call: ast.Call) -> None:
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        name = self._aliases.get(name, name)
        if name in _OPAQUE:
            self.open = True
        elif name in _IMPORTING:
            wanted = _literal(call, _IMPORTING[name])
            package = _literal(call, 1) if name == "import_module" else None
            if wanted is None or (wanted.startswith(".") and package is None):
                self.open = True
            elif wanted.startswith("."):
                self.names[_absolute(wanted, str(package))] = None
            else:
                self.names[wanted] = None


def _literal(call: ast.Call, position: int) -> Optional[str]:
    """An argument that the text holds; `None` when it does not, or when it may come from anywhere."""
    keyword = ("name", "package")[position]
    nodes = [each.value for each in call.keywords if each.arg in (keyword, "modname", "mod_name")]
    if len(call.args) > position:
        nodes.append(call.args[position])
    if len(nodes) == 1 and isinstance(nodes[0], ast.Constant) and isinstance(nodes[0].value, str):
        return nodes[0].value
    return None


def _absolute(name: str, package: str) -> str:
    bare = name.lstrip(".")
    parts = package.split(".")
    kept = parts[: len(parts) - (len(name) - len(bare) - 1)]
    return ".".join([*kept, bare] if bare else kept)
