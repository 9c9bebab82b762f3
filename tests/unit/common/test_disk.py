from __future__ import annotations

import errno

import pytest

from fleetest.common.digest import check_digest, digest_of
from fleetest.common.disk import disk_errors
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, InvalidRequest


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_capacity_exceeded(number: int) -> None:
    with pytest.raises(CapacityExceeded, match="the place /data: the disk is full"), disk_errors("the place /data"):
        raise OSError(number, "no room")


def test_any_other_failure_of_a_disk_is_a_dependency_that_is_unavailable() -> None:
    with pytest.raises(DependencyUnavailable, match="Input/output error"), disk_errors("the place"):
        raise OSError(errno.EIO, "Input/output error")


def test_what_is_no_disk_error_passes() -> None:
    with pytest.raises(InvalidRequest), disk_errors("the place"):
        check_digest("x")

    assert check_digest(digest_of(b"")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
