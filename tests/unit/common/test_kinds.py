import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from fleetest.common.kinds import registry
from fleetest.common.suite import SuiteInvalid, load_suite, suite_schema, task_models
from fleetest.common.tasks import RunnerType

EXAMPLE = Path(__file__).parents[3] / "examples" / "kind"
SUITE = """
version: 1
name: demo
defaults: {shell: bash, maxfail: 3}
tasks:
  scripts: {type: shell-tests, directory: tests}
  unit: {args: tests}
"""


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Has importlib.metadata find a package with these entry points, as pip would leave it."""

    def forget() -> None:
        for cached in (registry.kind_of, registry._others, task_models.task_model):
            cached.cache_clear()

    def install(entry_points: str) -> None:
        information = tmp_path / "fleetest_shell_tests-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fleetest-shell-tests\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.syspath_prepend(EXAMPLE)
        forget()

    yield install
    forget()


@pytest.fixture
def example(install: Callable[[str], None]) -> None:
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    install("".join(f"[{group}]\n{name} = {value}\n" for group, of in points.items() for name, value in of.items()))


@pytest.mark.usefixtures("example")
def test_package_can_register_a_kind_of_its_own():
    scripts, unit = load_suite(SUITE, source="fleetest.yaml").tasks

    assert (scripts.type, scripts.runner, scripts.planned) == ("shell-tests", RunnerType.COMMAND, True)
    assert (scripts.cases, scripts.reports) == ("find tests -name '*.sh' | sort", ("shell-tests.xml",))
    assert 'bash "$script"' in scripts.shell
    assert (scripts.maxfail, unit.type, unit.maxfail) == (0, "pytest", 3)


@pytest.mark.usefixtures("example")
def test_schema_for_editors_knows_the_keys_of_a_registered_kind():
    validator = jsonschema.Draft202012Validator(suite_schema())

    assert validator.is_valid(yaml.safe_load(SUITE))
    assert not validator.is_valid(yaml.safe_load(SUITE.replace("directory: tests", "directory: [tests]")))
    assert not validator.is_valid(yaml.safe_load(SUITE.replace("type: shell-tests", "type: shell-test")))


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("{type: shell-tests}", "key 'directory' is missing"),
        ("{type: shell-tests, directory: ../x}", "directory: '../x' leads out of the workspace"),
        ("{type: shell-tests, directory: x, args: [y]}", "'args' is not for a shell-tests task"),
        ("{type: shell-tests, directory: x, shel: y}", "unknown key 'shel'"),
        ("{args: x, directory: y}", "'directory' is not for a pytest task"),
    ],
)
def test_problems_with_keys_of_a_registered_kind_are_told(task: str, problem: str):
    with pytest.raises(SuiteInvalid) as caught:
        load_suite(f"version: 1\nname: demo\ntasks: {{a: {task}}}", source="fleetest.yaml")

    assert [each.message for each in caught.value.problems] == [problem]


def test_package_that_cannot_be_loaded_is_named_where_its_kind_is_used(install: Callable[[str], None]):
    install("[fleetest.kinds]\nbroken = no_such_module:Kind\n")
    suite = "version: 1\nname: demo\ntasks: {a: {type: broken}, b: {args: x}}"

    with pytest.raises(SuiteInvalid) as caught:
        load_suite(suite, source="fleetest.yaml")

    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (3, 19)
    assert problem.message == "type: the kind of test 'broken' cannot be loaded: No module named 'no_such_module'"
    assert problem.hint == "Mend or remove the package fleetest-shell-tests."
    assert "broken" not in suite_schema()["$defs"]["TaskModel"]["properties"]["type"]["anyOf"][0]["enum"]
