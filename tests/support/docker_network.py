"""A bridge and subnets of its own for each Engine of the tests, with the packet-filter rules that they need."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Bridge"]

_SUBNETS = tuple(ipaddress.IPv4Network("10.213.0.0/16").subnets(new_prefix=23))
_LOCK = Path(tempfile.gettempdir(), "fleetest-engine-networks.lock")


@dataclass(frozen=True, slots=True)
class Bridge:
    """
    An interface whose address is, to containers, the machine's own.

    Its Engine runs without rules of its own (`--iptables=false`): the chains that Engines share by name belong to the
    one that was started last, and taking turns would cost the others their networks.
    """

    name: str
    subnet: ipaddress.IPv4Network
    mtu: int

    @classmethod
    def make(cls, name: str) -> Bridge:
        """The one of that name when there is one. Several processes may do so at once. The caller removes it."""
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if present := [network for link, network in _addresses() if link == name]:
                return cls(name, present[0], _mtu())
            taken = list(_taken())
            free = next(each for each in _SUBNETS if not any(each.overlaps(other) for other in taken))
            subnet, _ = free.subnets(prefixlen_diff=1)
            bridge = cls(name, subnet, _mtu())
            _run("ip", "link", "add", name, "mtu", str(bridge.mtu), "type", "bridge")
            _run("ip", "address", "add", f"{bridge.gateway}/{subnet.prefixlen}", "dev", name)
            _run("ip", "link", "set", name, "up")
        for table, chain, rule in bridge.rules():
            _run("iptables", "--wait", "--table", table, "--insert", chain, *rule)
        return bridge

    @property
    def gateway(self) -> str:
        return str(next(self.subnet.hosts()))

    @property
    def pool(self) -> ipaddress.IPv4Network:
        """What networks that are made on the Engine get their subnets from."""
        _, second = self.subnet.supernet(prefixlen_diff=1).subnets(prefixlen_diff=1)
        return second

    def rules(self) -> list[tuple[str, str, list[str]]]:
        """Table, chain and rule; each has the bridge's name in it."""
        both = str(self.subnet.supernet(prefixlen_diff=1))
        note = ["-m", "comment", "--comment", self.name]
        return [
            ("nat", "POSTROUTING", ["-s", both, "!", "-d", both, *note, "-j", "MASQUERADE"]),
            ("filter", "FORWARD", ["-s", both, *note, "-j", "ACCEPT"]),
            ("filter", "FORWARD", ["-d", both, *note, "-j", "ACCEPT"]),
        ]

    def remove(self) -> None:
        """Idempotent."""
        for table, chain, rule in self.rules():
            with suppress(subprocess.CalledProcessError):  # gone already
                _run("iptables", "--wait", "--table", table, "--delete", chain, *rule)
        with suppress(subprocess.CalledProcessError):
            _run("ip", "link", "delete", self.name)


def _taken() -> list[ipaddress.IPv4Network]:
    """Every network that some interface or route of the machine has already."""
    routes = [ipaddress.IPv4Network(route["dst"]) for route in _ip("route") if route["dst"] != "default"]
    return [network for _, network in _addresses()] + routes


def _addresses() -> list[tuple[str, ipaddress.IPv4Network]]:
    """The name of an interface and a network that it belongs to."""
    return [
        (link["ifname"], ipaddress.IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False))
        for link in _ip("address")
        for info in link.get("addr_info", ())
        if info["family"] == "inet"
    ]


def _mtu() -> int:
    """What fits through the machine's own way out; larger packets would vanish silently."""
    for route in _ip("route"):
        if route["dst"] == "default":
            return int(Path("/sys/class/net", route["dev"], "mtu").read_text())
    return 1500


def _ip(what: str) -> list[dict[str, Any]]:
    listed = subprocess.run(["ip", "-4", "-json", what, "show"], capture_output=True, text=True, check=True)
    routes: list[dict[str, Any]] = json.loads(listed.stdout or "[]")
    return routes


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)
