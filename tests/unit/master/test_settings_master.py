"""How a master's settings may be combined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import Secret
from fleetest.master.settings import MasterSettings


def settings(address: str, *, client: str = "", join: str = "", **others: Any) -> MasterSettings:
    return MasterSettings(
        address=address,
        **others,
        data_directory=Path("/nowhere"),
        redis_url="unix:///nowhere",
        client_token=Secret(client),
        join_token=Secret(join),
    )


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:50051", "localhost:50051", "unix:/run/x"])
def test_on_loopback_no_tokens_are_needed(address: str) -> None:
    settings(address).check()


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:1", "10.0.0.1:1", "example.com:1", ":50051"])
def test_the_network_is_not_served_without_tokens(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"refusing to listen on .* without tokens") as refused:
        settings(address, insecure=True).check()

    assert "FLEETEST_JOIN_TOKEN" in refused.value.hint


CERTIFICATE: dict[str, Any] = {"tls_certificate": Path("/c.pem"), "tls_key": Path("/c.key")}


@pytest.mark.parametrize(
    "addresses", [{"address": "0.0.0.0:1"}, {"address": "127.0.0.1:1", "worker_address": "10.0.0.1:2"}]
)
def test_the_network_is_not_served_in_the_clear_without_consent(addresses: dict[str, Any]) -> None:
    settings(**addresses, client="a", join="b", insecure=True).check()
    settings(**addresses, client="a", join="b", **CERTIFICATE).check()

    with pytest.raises(InvalidRequest, match=r"refusing to listen on .* without TLS") as refused:
        settings(**addresses, client="a", join="b").check()
    assert "FLEETEST_INSECURE=1" in refused.value.hint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_certificate": Path("/c.pem")}, "come together"),
        ({"tls_key": Path("/c.key")}, "come together"),
        ({"tls_client_ca": Path("/ca.pem"), "worker_address": "127.0.0.1:2"}, "needs one of the master's own"),
        ({**CERTIFICATE, "tls_client_ca": Path("/ca.pem")}, "there is none"),
        ({"worker_address": "127.0.0.1"}, "has no port"),
        ({"worker_address": "unix:/run/x"}, "has no port"),
    ],
)
def test_half_of_tls_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        settings("127.0.0.1:1", **given).check()


@pytest.mark.parametrize(("client", "join"), [("a", ""), ("", "b")])
@pytest.mark.parametrize("address", ["127.0.0.1:50051", "0.0.0.0:50051"])
def test_one_token_alone_would_lock_somebody_out(address: str, client: str, join: str) -> None:
    with pytest.raises(InvalidRequest):
        settings(address, client=client, join=join).check()


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:", "127.0.0.1:http", ""])
def test_an_address_has_a_port(address: str) -> None:
    with pytest.raises(InvalidRequest, match="has no port"):
        settings(address, client="a", join="b").check()


def test_tokens_are_not_shown() -> None:
    assert "s3cret" not in repr(settings("127.0.0.1:0", client="s3cret", join="s3cret"))


def test_password_of_the_store_is_not_shown() -> None:
    chosen = replace(settings("127.0.0.1:0"), mongodb_url=Secret("mongodb://ada:s3cret@host"))

    assert "s3cret" not in repr(chosen)


def test_data_directory_is_needed_unless_store_and_blobs_are_elsewhere() -> None:
    without = replace(settings("127.0.0.1:0"), data_directory=None)
    elsewhere = {"mongodb_url": Secret("mongodb://host"), "blobs_directory": Path("/blobs")}

    replace(without, **elsewhere).check()

    for name, value in elsewhere.items():
        with pytest.raises(InvalidRequest, match="FLEETEST_DATA_DIR: is required"):
            replace(without, **{name: value}).check()
