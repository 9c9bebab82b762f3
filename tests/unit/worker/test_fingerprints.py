"""What the results of test files depend on, as a real session finds it out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fleetest.common.states import Verdict
from tests.tools.local_worker import make_spec, opened, run_cases

FILES = {
    "pytest.ini": "[pytest]\npythonpath = src\n",
    "src/one.py": "",
    "src/two.py": "",
    "src/loose.py": "",
    "src/unused.py": "",
    "tests/conftest.py": "import one",
    "tests/a/conftest.py": "",
    "tests/a/test_a.py": "def test(): import two",
    "tests/b/conftest.py": "def pytest_runtest_setup(item): pass",
    "tests/b/test_b.py": "def test(): pass",
    "tests/c/test_open.py": "import sys\n__import__(['os', sys][0])\ndef test(): pass",
    "data/some.json": "{}",
}
A, B, OPEN = "tests/a/test_a.py", "tests/b/test_b.py", "tests/c/test_open.py"


async def fingerprints(
    workspace: Path, changes: Mapping[str, str | None], env: Mapping[str, str] = {}, **spec: Any
) -> Mapping[str, str]:
    """As a plan says them for the files with these changes; one that is changed to nothing is not there."""
    for name, text in {**FILES, **changes}.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(dedent(text))
    lean = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    task = make_spec(workspace, fingerprints=True, env={**lean, **env}, **spec)
    async with opened(task) as session:
        ended, reporter = await run_cases(session, task, ())
    assert ended.verdict is Verdict.COMPLETED, reporter.text
    assert "nothing is cached" not in reporter.text
    return reporter.fingerprints


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"data/some.json": "[]"}, []),
        ({A: "def test(): import two, json"}, [A, OPEN]),
        ({"src/two.py": "x = 1"}, [A, OPEN]),
        ({"src/one.py": "x = 1"}, [A, B, OPEN]),
        ({"src/unused.py": "x = 1"}, [OPEN]),
        ({"tests/a/conftest.py": "x = 1"}, [A, OPEN]),
        ({"tests/b/conftest.py": "def pytest_runtest_setup(item): print()"}, [B, OPEN]),
        ({"tests/b/conftest.py": "def pytest_collection_modifyitems(items): pass"}, [A, B, OPEN]),
        ({"tests/conftest.py": None}, [A, B, OPEN]),
        ({"src/json.py": "from loose import *"}, [OPEN]),
        ({"pytest.ini": "[pytest]\npythonpath = src src/more\n"}, [A, B, OPEN]),
        ({"tests/c/test_new.py": "def test(): pass"}, [OPEN]),
    ],
    ids=str,
)
async def test_only_what_depends_on_a_change_has_another_fingerprint(tmp_path, before, changes, changed):
    if not before:
        before.update(await fingerprints(tmp_path / "before", {}))

    after = await fingerprints(tmp_path / "after", changes)

    assert {name for name in before if after[name] != before[name]} == {*changed}


async def test_what_was_imported_behind_the_texts_counts_for_every_file(tmp_path):
    plugin = {"src/plugin.py": "import builtins; getattr(builtins, '__imp' + 'ort__')('loose')"}
    arguments = {"command": ("-p", "plugin")}

    first = await fingerprints(tmp_path / "first", plugin, **arguments)
    second = await fingerprints(tmp_path / "second", {**plugin, "src/loose.py": "x = 1"}, **arguments)

    assert all(first[name] != second[name] for name in (A, B))


async def test_variables_that_change_how_python_runs_count(tmp_path):
    first = await fingerprints(tmp_path / "first", {}, env={"TZ": "UTC"})
    second = await fingerprints(tmp_path / "second", {}, env={"TZ": "Asia/Tokyo"})

    assert all(first[name] != second[name] for name in (A, B, OPEN))


async def test_only_a_plan_that_is_asked_says_fingerprints(tmp_path):
    spec = make_spec(tmp_path)
    (tmp_path / "test_a.py").write_text("def test(): pass")

    async with opened(spec) as session:
        _, reporter = await run_cases(session, spec, ())

    assert reporter.fingerprints == {}
