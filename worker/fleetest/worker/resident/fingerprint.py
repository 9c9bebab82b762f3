"""
What the results of each test file depend on, as one digest: the file, what it and its conftests load, pytest's
configuration, the interpreter, and what is installed.

Computed in the session that has collected the tests, since only there is known how names are looked up, which plugins
are active, and what has been imported. `docs/caching.md` says what is covered and what is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Optional, Set

__all__ = ["Fingerprints"]

_FORMAT = 1
_CONFIGURATION = (
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
    ".coveragerc",
)
_CODE = (".py", ".so", ".pyd")
_NOT_CODE = frozenset(("__pycache__", ".git", ".hg", ".pytest_cache", "node_modules"))
_VARIABLES = ("LANG", "LANGUAGE", "TZ")
_VARIABLE_PREFIXES = ("LC_", "PYTHON")
# Hooks that pytest calls only for what lies below their conftest; all others reach further.
_LOCAL_HOOKS = (
    "pytest_runtest_",
    "pytest_fixture_",
    "pytest_pycollect_",
    "pytest_collect_file",
    "pytest_collect_directory",
    "pytest_ignore_collect",
    "pytest_generate_tests",
    "pytest_make_parametrize_id",
    "pytest_pyfunc_call",
    "pytest_assertrepr_compare",
    "pytest_assertion_pass",
    "pytest_exception_interact",
)
# In a RECORD: what says where, and not what, was installed.
_PLACE_DEPENDENT = ("direct_url.json", "INSTALLER", "REQUESTED", "RECORD", ".pyc")


class Fingerprints:
    """
    Args:
        closure: the module of that name, which is in no `sys.modules`.
        workspace: its real path.
        collected: the paths of all modules that were collected, also of those without a case to run.
    """

    def __init__(self, closure: Any, session: Any, workspace: str, collected: Iterable[str]) -> None:
        self._session = session
        self._workspace = workspace
        self._places = closure.Places()
        self._closures = closure.Closures(self._places)
        self._collected = frozenset(map(os.path.realpath, collected))
        self._digests: Dict[str, str] = {}
        self._all_code: Optional[str] = None

    def of_files(self, items: Dict[str, List[Any]]) -> Dict[str, str]:
        """The digests of these files, named as the cases name them, of which the items are."""
        common = self._common()
        everywhere = self._plugins() | self._far_reaching_conftests()
        closures = {}
        for name, of_file in items.items():
            file = os.path.realpath(str(getattr(of_file[0], "path", None) or of_file[0].fspath))
            closures[name] = self._closures.of({file} | self._conftests(file) | everywhere)
        known: Set[str] = set(self._collected)
        known.update(*(each.files for each in closures.values()))
        unexplained = self._imported() - known
        more = self._closures.of(unexplained)
        answer = {}
        for name, each in closures.items():
            is_open = each.open or more.open or not all(map(_is_plain, items[name]))
            files = each.files | more.files
            answer[name] = _digest([common, self._contents(files), self._everything() if is_open else ""])
        return answer

    # -- files

    def _contents(self, files: FrozenSet[str]) -> List[List[str]]:
        return sorted([self._name(file), self._content(file)] for file in files)

    def _name(self, file: str) -> str:
        inside = file.startswith(self._workspace + os.sep)
        return file[len(self._workspace) + 1 :] if inside else file

    def _content(self, file: str) -> str:
        if file not in self._digests:
            self._digests[file] = _file_digest(file)
        return self._digests[file]

    def _everything(self) -> str:
        """Of all code in the workspace: what an import by an unknown name may find there."""
        if self._all_code is None:
            found = []
            for directory, below, names in os.walk(self._workspace):
                below[:] = [name for name in below if name not in _NOT_CODE]
                found += [os.path.join(directory, name) for name in names if name.endswith(_CODE)]
            self._all_code = _digest(self._contents(frozenset(found)))
        return self._all_code

    def _above(self, file: str) -> Iterator[str]:
        """The directories from a file's own to the top of the workspace."""
        directory = os.path.dirname(file)
        while directory == self._workspace or directory.startswith(self._workspace + os.sep):
            yield directory
            directory = os.path.dirname(directory)

    def _conftests(self, file: str) -> Set[str]:
        candidates = (os.path.join(directory, "conftest.py") for directory in self._above(file))
        return {each for each in candidates if os.path.isfile(each)}

    # -- what pytest has loaded

    def _plugins(self) -> Set[str]:
        """Own files that are active as plugins, or of which objects are."""
        found = set()
        for plugin in self._session.config.pluginmanager.get_plugins():
            holder = plugin if hasattr(plugin, "__file__") else sys.modules.get(type(plugin).__module__)
            file = self._own_file(holder)
            if file is not None and os.path.basename(file) != "conftest.py":
                found.add(file)
        return found

    def _far_reaching_conftests(self) -> Set[str]:
        found = set()
        for plugin in self._session.config.pluginmanager.get_plugins():
            file = self._own_file(plugin)
            if file is None or os.path.basename(file) != "conftest.py":
                continue
            hooks = [name for name, each in vars(plugin).items() if name.startswith("pytest_") and callable(each)]
            if not all(name.startswith(_LOCAL_HOOKS) for name in hooks):
                found.add(file)
        return found

    def _imported(self) -> Set[str]:
        """Own files that were imported until now, by whatever means."""
        files = (self._own_file(module) for module in list(sys.modules.values()))
        return {file for file in files if file is not None}

    def _own_file(self, module: Any) -> Optional[str]:
        try:
            file = module.__file__
        except Exception:  # noqa: BLE001 - a module may be any object, and its attributes may do anything
            return None
        if not isinstance(file, str) or not os.path.isfile(file) or not self._places.is_own(file):
            return None
        real = os.path.realpath(file)
        return None if real.startswith(os.path.dirname(os.path.realpath(__file__)) + os.sep) else real

    # -- what is the same for all files

    def _common(self) -> str:
        return _digest([_FORMAT, _interpreter(), _variables(), self._configuration(), self._distributions()])

    def _configuration(self) -> List[List[str]]:
        config = self._session.config
        files = {str(config.inipath)} if getattr(config, "inipath", None) else set()
        root = os.path.realpath(str(config.rootpath))
        for directory in {self._workspace, root, *self._above(os.path.join(root, "file"))}:
            files.update(os.path.join(directory, name) for name in _CONFIGURATION)
        return self._contents(frozenset(os.path.realpath(file) for file in files if os.path.isfile(file)))

    def _distributions(self) -> List[List[str]]:
        found = []
        for place in sorted(self._places.installed):
            try:
                entries = sorted(os.listdir(place))
            except OSError:
                continue
            for entry in entries:
                content = self._installed(os.path.join(place, entry))
                if content:
                    found.append([entry, content])
        return sorted(found)

    def _installed(self, path: str) -> str:
        if path.endswith(".dist-info"):
            record = _read(os.path.join(path, "RECORD"))
            if record and not _is_editable(path):
                return _digest(sorted(filter(_tells, record.splitlines())))
            return _file_digest(os.path.join(path, "METADATA"))
        if path.endswith(".egg-info"):
            return _file_digest(os.path.join(path, "PKG-INFO") if os.path.isdir(path) else path)
        if path.endswith((".pth", ".egg-link")):
            return _digest(_read(path).replace(self._workspace, "<workspace>"))
        if path.endswith(".py") and not os.path.basename(path).startswith("__editable__"):
            return _file_digest(path)
        return ""


def _is_plain(item: Any) -> bool:
    """Whether a case is a function in a Python file; of others nobody knows what they import."""
    return hasattr(item, "function") and not type(item).__name__.startswith("Doctest")


def _is_editable(path: str) -> bool:
    """Whether a distribution is only a pointer at its sources, which are no part of what is installed."""
    return '"editable": true' in _read(os.path.join(path, "direct_url.json"))


def _tells(line: str) -> bool:
    """Whether a line of a RECORD says what was installed; scripts and compiled files depend on the place."""
    name = line.partition(",")[0]
    return not (name.startswith("../") or name.endswith(_PLACE_DEPENDENT))


def _interpreter() -> List[Any]:
    release = [_read(path) for path in ("/etc/os-release",)]
    libc = platform.libc_ver() if sys.platform.startswith("linux") else ("", "")
    return [sys.version, sys.implementation.name, sys.platform, platform.machine(), list(libc), release]


def _variables() -> List[List[str]]:
    chosen = (name for name in os.environ if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES))
    # The hash seed is ours, and another in each run; a task that sets its own has it among its variables.
    return sorted([name, os.environ[name]] for name in chosen if name not in ("PYTHONHASHSEED", "PYTHONPATH"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except OSError as error:
        return "unreadable: " + str(error.errno)
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode("ascii")).hexdigest()
