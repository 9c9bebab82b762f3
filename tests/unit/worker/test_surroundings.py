from __future__ import annotations

from pathlib import Path

import pytest

from fleetest.common.errors import DependencyUnavailable
from fleetest.worker.executors.docker.surroundings import Surroundings, own_container

ID = "13564d0cb08180ead92d26a6c6635638d0c379496e7f455e62634c35e540b207"
DOCKER = f"96 78 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw\n"
PODMAN = f"9 7 0:2 /containers/storage/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw\n"
MACHINE = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
OTHERS = f"80 22 0:40 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n"


@pytest.mark.parametrize(
    ("mounts", "found"), [(MACHINE + DOCKER, ID), (PODMAN, ID), (MACHINE + OTHERS, ""), (MACHINE, "")]
)
def test_a_container_is_known_by_where_its_host_name_comes_from(tmp_path, mounts, found):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(mounts)

    assert own_container(tmp_path) == found


def test_no_container_where_there_are_no_mounts_to_read(tmp_path):
    assert own_container(tmp_path) == ""


def test_the_nearest_mount_says_what_the_engine_calls_a_path():
    surroundings = Surroundings(
        mounts={Path("/data"): Path("/volumes/data/_data"), Path("/data/cache"): Path("/mnt/fast")}
    )

    assert surroundings.engine_path(Path("/data/docker/c")) == Path("/volumes/data/_data/docker/c")
    assert surroundings.engine_path(Path("/data/cache")) == Path("/mnt/fast")
    assert surroundings.engine_path(Path("/data")) == Path("/volumes/data/_data")


def test_a_directory_that_the_engine_cannot_see_is_refused():
    with pytest.raises(DependencyUnavailable, match="cannot see /data, which lies in the worker's own container only"):
        Surroundings(mounts={Path("/other"): Path("/x")}).engine_path(Path("/data"))


def test_beside_the_engine_both_call_it_the_same():
    assert Surroundings().engine_path(Path("/data")) == Path("/data")
