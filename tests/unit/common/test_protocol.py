"""Two versions find out whether they understand each other."""

from __future__ import annotations

import pytest

from fleetest.common.errors import InvalidRequest, WrongState
from fleetest.common.protocol import OLDEST_PROTOCOL, PROTOCOL, check_protocol


@pytest.mark.parametrize("header", [None, str(PROTOCOL), str(OLDEST_PROTOCOL), f" {PROTOCOL} "])
def test_a_peer_of_a_known_protocol_or_of_none_is_accepted(header: str | None) -> None:
    check_protocol(header)


def test_a_newer_peer_is_told_to_have_the_master_upgraded() -> None:
    with pytest.raises(WrongState, match=f"speaks protocol {PROTOCOL + 1}") as refused:
        check_protocol(str(PROTOCOL + 1))

    assert "upgrade the master" in refused.value.hint


@pytest.mark.parametrize("header", [str(OLDEST_PROTOCOL - 1), "-5"])
def test_an_older_peer_is_told_to_upgrade(header: str) -> None:
    with pytest.raises(WrongState, match="no longer speaks") as refused:
        check_protocol(header)

    assert "pip install --upgrade fleetest" in refused.value.hint


@pytest.mark.parametrize("header", ["", "one", "1.0", "9" * 5000])
def test_a_header_that_is_no_number_is_refused(header: str) -> None:
    with pytest.raises((InvalidRequest, WrongState)):
        check_protocol(header)
