from __future__ import annotations

import pytest

from fleetest.client.addresses import is_local, parse_addresses
from fleetest.common.errors import InvalidRequest


def test_several_addresses_are_parted_by_commas():
    addresses = parse_addresses(" a.example:50051, [::1]:7 ,unix:///run/fleetest.sock,")

    assert addresses == ("a.example:50051", "[::1]:7", "unix:///run/fleetest.sock")


@pytest.mark.parametrize(
    "text", ["", " , ", "host", "host:", "host:0", "host:65536", "http://host:1", "unix://", "unix:///", "a b:1", ":1"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_addresses(text)


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("unix:///x", True), ("10.0.0.1:1", False)],
)
def test_loopback_and_sockets_are_local(address, local):
    assert is_local(address) is local
