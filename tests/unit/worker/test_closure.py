"""What a Python file may load, told from its text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from fleetest.worker.resident.closure import Closures, Places


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[set[str], bool]]:
    """
    Writes files and answers what `start.py` may load, and whether it is open; `lib` and the top are on the path.

    Names begin with `our_`, as what is imported already comes first.
    """
    for place in (tmp_path, tmp_path / "lib"):
        monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(sys, "path_importer_cache", {})

    def closure(start: str, **files: str) -> tuple[set[str], bool]:
        for name, text in {"start": start, **files}.items():
            path = tmp_path / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        found = Closures(Places()).of([str(tmp_path / "start.py")])
        names = {str(Path(file).relative_to(tmp_path.resolve())) for file in found.files}
        return names - {"start.py"}, found.open

    return closure


def test_imports_are_followed_from_file_to_file_and_round_again(tree):
    found = tree("import our_a", our_a="from our_b import thing", our_b="import our_a", our_c="")

    assert found == ({"our_a.py", "our_b.py"}, False)


def test_every_package_on_the_way_counts(tree):
    found = tree(
        "import our_p.q.r",
        our_p__in____init__="",
        our_p__in__q__in____init__="from .. import side",
        our_p__in__q__in__r="",
        our_p__in__side="",
        our_p__in__other="",
    )

    assert found[0] == {"our_p/__init__.py", "our_p/q/__init__.py", "our_p/q/r.py", "our_p/side.py"}


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ("from . import near", {"near"}),
        ("from .near import thing", {"near"}),
        ("from .. import top", {"../top"}),
        ("from ..top import thing", {"../top"}),
        ("from .sub.deep import thing", {"sub/deep"}),  # `sub` is a namespace package: it has no file
        ("from . import thing", set()),
    ],
)
def test_relative_imports_lead_to_neighbours(tree, text, loaded):
    found, _ = tree(
        "import our_p.q.start2",
        our_p__in____init__="",
        our_p__in__top="",
        our_p__in__q__in____init__="",
        our_p__in__q__in__start2=text,
        our_p__in__q__in__near="",
        our_p__in__q__in__sub__in__deep="",
    )

    places = {f"our_p/q/{name}.py".replace("q/../", "") for name in loaded}
    assert found - {"our_p/__init__.py", "our_p/q/__init__.py", "our_p/q/start2.py"} == places


def test_star_import_of_a_package_may_load_any_of_its_modules(tree):
    found, _ = tree(
        "from our_p import *",
        our_p__in____init__="__all__ = ['one']",
        our_p__in__one="",
        our_p__in__two="",
        our_p__in__deep__in__three="",
    )

    assert found == {"our_p/__init__.py", "our_p/one.py", "our_p/two.py"}


def test_namespace_package_is_followed_over_all_its_places(tree):
    found, _ = tree("import our_n.one, our_n.two", our_n__in__one="", lib__in__our_n__in__two="")

    assert found == {"our_n/one.py", "lib/our_n/two.py"}


@pytest.mark.parametrize(
    "text",
    [
        "if False:\n    import our_a",
        "try:\n    import our_a\nexcept ImportError:\n    pass",
        "def test():\n    from our_a import thing",
        "import importlib\nimportlib.import_module('our_a')",
        "from importlib import import_module as load\nload(name='our_a')",
        "__import__('our_a')",
        "import pytest\nours = pytest.importorskip('our_a')",
        "pytest_plugins = ['our_a']",
        "pytest_plugins: str = 'our_a'",
    ],
)
def test_what_may_be_imported_counts_as_imported(tree, text):
    assert tree(text, our_a="") == ({"our_a.py"}, False)


def test_relative_name_with_its_package_is_known(tree):
    text = "import importlib\nimportlib.import_module('.a', package='our_p')"

    assert tree(text, our_p__in____init__="", our_p__in__a="") == ({"our_p/__init__.py", "our_p/a.py"}, False)


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module(f'our_{x}')",
        "import importlib\nimportlib.import_module('.a', package=__package__)",
        "from importlib import import_module as load\nload(*names)",
        "__import__(name)",
        "exec(text)",
        "import runpy\nrunpy.run_path('our_a.py')",
        "from importlib.util import spec_from_file_location as spec\nspec('x', 'y.py')",
        "this is no Python",
    ],
)
def test_file_that_imports_by_an_unknown_name_is_open(tree, text):
    assert tree("import our_a", our_a=text) == ({"our_a.py"}, True)


def test_interpreter_and_installed_packages_are_left_out(tree):
    assert tree("import json, os.path, pytest, click.testing, sys, our_missing.thing") == (set(), False)


def test_module_of_ours_that_hides_an_installed_one_counts(tree):
    assert tree("import our_a", our_a="", lib__in__our_a="")[0] == {"lib/our_a.py"}
