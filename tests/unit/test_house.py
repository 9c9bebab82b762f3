"""What keeps the layout working: see "The house" in the contributor's guide."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPONENTS = ("common", "client", "master", "worker")
MODULES = sorted(
    path
    for component in COMPONENTS
    for path in (ROOT / component / "fleetest" / component).rglob("*.py")
    if "resident" not in path.parts  # runs under the user's interpreter, and is imported by nobody
)


@pytest.mark.parametrize("component", COMPONENTS)
def test_namespace_has_no_init(component):
    """One would hide the other components' packages (PEP 420)."""
    assert not (ROOT / component / "__init__.py").exists()
    assert not (ROOT / component / "fleetest" / "__init__.py").exists()


def test_docker_folder_does_not_shadow_the_sdk():
    assert not (ROOT / "docker" / "__init__.py").exists()


def test_public_names_are_declared():
    """`__all__` names every public class, function and constant that a module defines, and nothing else."""
    assert len(MODULES) > 100
    assert {str(path.relative_to(ROOT)): wrong for path in MODULES if (wrong := wrongly_declared(path))} == {}


@pytest.mark.parametrize("component", ["common", "client"])
def test_the_client_alone_brings_what_its_modules_import(component):
    """The checks in a task's own environment, too, have no more of us than that. Functions may import what is chosen."""
    declared = {re.match(r"[\w-]+", each)[0].lower() for each in PROJECT["dependencies"]}
    owners = packages_distributions() | {"pydantic_core": ["pydantic"]}  # whose core it is

    imported = {
        (str(path.relative_to(ROOT)), name)
        for path in MODULES
        if path.is_relative_to(ROOT / component)
        for node in ast.parse(path.read_text()).body
        for name in imported_by(node) - sys.stdlib_module_names - {"fleetest"}
    }

    assert {(path, name) for path, name in imported if declared.isdisjoint(map(str.lower, owners[name]))} == set()


def imported_by(node: ast.stmt) -> set[str]:
    """The packages that a statement imports."""
    match node:
        case ast.Import(names=names):
            return {alias.name.partition(".")[0] for alias in names}
        case ast.ImportFrom(module=str(module)):
            return {module.partition(".")[0]}
    return set()


def wrongly_declared(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    made, defined, declared, imported = set(), set(), None, set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            made.add(node.name)
        elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            declared = set(ast.literal_eval(node.value))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    public = {name for name in made if not name.startswith("_")}
    if declared is None:
        return public | {name for name in defined if not name.startswith("_")}
    if declared <= made | defined:
        return public - declared
    for node in ast.walk(tree):  # a package that imports on demand has them under TYPE_CHECKING
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imported |= {alias.asname or alias.name for alias in node.names}
    return (declared - made - defined - imported) | (public - declared)


def test_wheel_holds_all_parts_and_nothing_else(tmp_path):
    """Built by way of the sdist, as a release is."""
    subprocess.run(
        [Path(sys.executable).with_name("uv"), "build", "--quiet", "--out-dir", tmp_path, "--python", sys.executable],
        cwd=ROOT,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    packages = {name for name in names if not name.startswith("fleetest-")}
    assert {name.split("/")[1] for name in packages} == {*COMPONENTS, "v1"}
    assert not [name for name in packages if not name.startswith("fleetest/")]
    tracked = {
        str(path.relative_to(ROOT / component))
        for component in COMPONENTS
        for path in (ROOT / component / "fleetest").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packages == tracked
