"""The port of a cluster's master."""

from __future__ import annotations

import socket

import pytest

from fleetest.common.errors import DependencyUnavailable
from fleetest.master.reserved_port import reserved_port


def test_clusters_that_start_at_once_get_different_ports() -> None:
    with reserved_port() as first, reserved_port() as second, reserved_port() as third:
        assert len({first, second, third}) == 3


def test_port_that_is_wanted_and_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(DependencyUnavailable, match=f"port {port} is taken"), reserved_port(port):
            pass
