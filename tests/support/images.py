"""Our own images, built as a user builds them, but of wheels: no build reaches for the network."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.docker_engine import DockerEngine

__all__ = ["IMAGE_PYTHON", "build_image", "make_context"]

IMAGE_PYTHON = "3.13"
"""The version in the tests' base image."""

_ROOT = Path(__file__).parents[2]
_UV = str(Path(sys.executable).with_name("uv"))
_RUNNING = ("pytest", "pytest-timeout")
"""What the image for tasks is made of, beside our own."""
_CACHE = _ROOT / ".cache" / "wheels"


def make_context(directory: Path, *, python: str) -> Path:
    """
    A directory to build from: what the ignore file lets through, and all wheels for that version of Python.

    Our own wheel is made of those files alone, so that a file which images need and never see is noticed.
    """
    ignored = (_ROOT / ".dockerignore").read_text().splitlines()
    for name in (line.removeprefix("!") for line in ignored if line.startswith("!")):
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, directory / name)
    wheels = directory / "docker" / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    subprocess.run(
        [_UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", wheels], cwd=directory, check=True
    )
    (own,) = wheels.glob("*.whl")
    for wheel in _wheels_of_others(own, python).iterdir():
        shutil.copy(wheel, wheels)
    return directory


def _wheels_of_others(own: Path, python: str) -> Path:
    """
    All that our wheel needs, and what tasks need; asked for once, as long as what decides it stays the same.

    One process asks; others that come meanwhile wait for it.
    """
    _CACHE.parent.mkdir(exist_ok=True)
    with _CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _kept_wheels(own, python)


def _kept_wheels(own: Path, python: str) -> Path:
    decides = (_ROOT / "pyproject.toml").read_bytes() + " ".join([python, *_RUNNING]).encode()
    kept = _CACHE / hashlib.sha256(decides).hexdigest()[:16]
    if kept.exists():
        return kept
    shutil.rmtree(_CACHE, ignore_errors=True)
    coming = _CACHE / "coming"
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    kind = [f"--platform={each}_{machine}" for each in ("manylinux2014", "manylinux_2_28")]
    kind += ["--only-binary=:all:", f"--python-version={python}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={coming}"]
    subprocess.run([*command, *kind, f"{own}[master,worker,performance]", *_RUNNING], check=True)
    (coming / own.name).unlink()
    return coming.rename(kept)


def build_image(engine: DockerEngine, context: Path, name: str, *, base: str, **arguments: str) -> str:
    """The image of `docker/NAME.Dockerfile`; answers its name on the Engine."""
    tag = f"fleetest-test-{name}"
    engine.docker(
        *("build", "--quiet", "--force-rm", "--file", str(_ROOT / "docker" / f"{name}.Dockerfile")),
        *(f"--build-arg={key}={value}" for key, value in {"BASE_IMAGE": base, **arguments}.items()),
        *("--tag", tag, str(context)),
        timeout=280,
    )
    return tag
