"""The tests' own Docker Engine: it works as the machine's would, and nothing of it stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.docker_engine import open_docker_engine


def test_container_reaches_its_host_and_no_network_unless_given_one(docker_engine, base_image):
    routes = "import pathlib; print(pathlib.Path('/proc/net/route').read_text())"

    bridged = docker_engine.docker("run", "--rm", base_image, "python3", "-c", routes)
    alone = docker_engine.docker("run", "--rm", "--network", "none", base_image, "python3", "-c", routes)

    assert len(bridged.splitlines()) > 1
    assert len(alone.splitlines()) == 1


def test_containers_of_a_network_of_their_own_reach_each_other(docker_engine, base_image):
    docker_engine.docker("network", "create", "pair")
    server = docker_engine.docker(
        "run", "--detach", "--init", "--network=pair", "--name=server", base_image, "python3", "-m", "http.server", "80"
    )
    try:
        ask = "import urllib.request as r\nwhile True:\n try: print(r.urlopen('http://server').status); break\n except OSError: pass"
        assert (
            docker_engine.docker("run", "--rm", "--network=pair", base_image, "python3", "-c", ask, timeout=60) == "200"
        )
    finally:
        docker_engine.docker("rm", "--force", server)
        docker_engine.docker("network", "rm", "pair")


def test_python_image_has_pytest(docker_engine, python_image):
    version = docker_engine.docker("run", "--rm", python_image, "python", "-m", "pytest", "--version")

    assert version.startswith("pytest ")


def test_engine_comes_back_on_what_it_had_and_leaves_nothing(docker_engine, root_tar):
    """Beside another one, and although it was killed with a container running."""
    with open_docker_engine() as engine:
        engine.docker("import", str(root_tar), "base")
        container = engine.docker("run", "--detach", "--init", "base", "sleep", "600")
        engine.docker("volume", "create", "kept")
        assert engine.gateway != docker_engine.gateway

        engine.kill()
        engine.start()

        assert engine.docker("inspect", "--format", "{{.State.Running}}", container) == "false"
        assert engine.volumes() == ["kept"]
        engine.docker("start", container)
        engine.kill()
        directory, bridge = engine.directory, engine.bridge

    assert not directory.exists()
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    assert not Path("/sys/class/net", bridge).exists()
    assert bridge not in subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    assert not any(Path("/sys/fs/cgroup").glob(f"*/docker/{container}"))
    assert not any(str(directory) in _command_line(process) for process in Path("/proc").glob("[0-9]*"))


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
