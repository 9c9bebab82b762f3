from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest

from fleetest.common.errors import (
    CapacityExceeded,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    WrongState,
)
from fleetest.worker.executors.docker.engine_errors import MountFailed, engine_error, engine_gone, image_error
from fleetest.worker.executors.docker.sdk_engine import EngineAddress, SdkEngine

IMAGE = "registry.example/team/app:1"


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (404, "No such container: abc", NotFound),
        (409, "Container abc is not running", WrongState),
        (500, "write /var/lib/x: no space left on device", CapacityExceeded),
        (400, 'OCI runtime create failed: exec: "/bin/sh": stat /bin/sh: no such file or directory', InvalidRequest),
        (500, "error while mounting volume '/v/_data': failed to mount local volume: invalid argument", MountFailed),
        (500, "driver failed programming external connectivity", DependencyUnavailable),
        (500, "Bind for 0.0.0.0:8080 failed: port is already allocated", InvalidRequest),
        (404, "could not find an available, non-overlapping IPv4 address pool among the defaults", CapacityExceeded),
    ],
)
def test_answers_of_the_engine_have_their_place_in_the_tree(status, said, error):
    mapped = engine_error(status, said, doing="start a container")

    assert type(mapped) is error
    assert said in mapped.message


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (404, f"manifest for {IMAGE} not found: manifest unknown: manifest unknown", InvalidRequest),
        (
            404,
            "pull access denied for team/app, repository does not exist or may require 'docker login'",
            InvalidRequest,
        ),
        (400, "invalid reference format", InvalidRequest),
        (500, "Get https://registry.example/v2/: unauthorized: authentication required", Forbidden),
        (500, "Head https://registry.example/v2/: no basic auth credentials", Forbidden),
        (
            500,
            "Get https://registry.example/v2/: dial tcp: lookup registry.example: no such host",
            DependencyUnavailable,
        ),
        (None, "failed to register layer: write /usr/lib/x: no space left on device", CapacityExceeded),
    ],
)
def test_images_that_cannot_be_pulled_are_explained(status, said, error):
    mapped = image_error(IMAGE, status, said)

    assert type(mapped) is error
    assert IMAGE in mapped.message
    assert mapped.hint


def test_engine_that_does_not_answer_is_named():
    mapped = engine_gone("unix:///run/none.sock", ConnectionRefusedError("refused"))

    assert "unix:///run/none.sock" in mapped.message
    assert "DOCKER_HOST" in mapped.hint


async def test_engine_that_is_dead_leaves_no_socket_open(tmp_path):
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(tmp_path / "docker.sock"))
    gc.disable()  # it would close what is forgotten
    try:
        open_before = descriptors()

        with pytest.raises(DependencyUnavailable, match=r"docker\.sock"):
            await SdkEngine.connect(EngineAddress(url=f"unix://{tmp_path}/docker.sock"))

        assert descriptors() == open_before
    finally:
        gc.enable()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
