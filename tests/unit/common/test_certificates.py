"""Bad certificate files, found before they are used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fleetest.common.certificates import check_authorities, check_client_pair, check_server_pair
from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import read_settings
from fleetest.common.tls import ClientTls, TlsSettings
from tests.support.certificates import Authority, Pair

CHECKS = (check_server_pair, check_client_pair)


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_good_pair_tells_when_it_expires(authority, check):
    pair = authority.issue(lasts=timedelta(days=3))

    left = check(pair.certificate, pair.key) - datetime.now(UTC)

    assert timedelta(days=2, hours=23) < left <= timedelta(days=3)


def _expired(authority: Authority) -> Pair:
    return authority.issue(lasts=timedelta(days=-1))


def _of_two(authority: Authority) -> Pair:
    return Pair(certificate=authority.issue().certificate, key=authority.issue(file="other").key)


def _without_key(authority: Authority) -> Pair:
    pair = authority.issue()
    pair.key.unlink()
    return pair


def _garbage(authority: Authority) -> Pair:
    pair = authority.issue()
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n")
    return pair


def _der(authority: Authority) -> Pair:
    pair = authority.issue()
    pair.certificate.write_bytes(b"\x30\x82")
    return pair


def _swapped(authority: Authority) -> Pair:
    pair = authority.issue()
    return Pair(certificate=pair.key, key=pair.certificate)


def _directory(authority: Authority) -> Pair:
    return Pair(certificate=authority.issue().certificate, key=authority.ca.parent)


def _encrypted(authority: Authority) -> Pair:
    pair = authority.issue()
    key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return pair


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_expired, "has expired"),
        (_of_two, r"other\.key does not belong to the certificate .*server\.pem"),
        (_without_key, r"the key .*server\.key cannot be read: No such file"),
        (_directory, "cannot be read: Is a directory"),
        (_garbage, "cannot be used"),
        (_der, "is not PEM"),
        (_swapped, "cannot be used"),
        (_encrypted, "is encrypted"),
    ],
)
def test_bad_pair_is_refused_in_words(authority, check, make, message):
    pair = make(authority)

    with pytest.raises(InvalidRequest, match=message):
        check(pair.certificate, pair.key)


def test_authorities_are_certificates(authority):
    check_authorities(authority.ca)

    with pytest.raises(InvalidRequest, match="holds no certificate"):
        check_authorities(authority.issue().key)


@pytest.mark.parametrize(
    ("environment", "used"),
    [
        ({}, None),
        ({"FLEETEST_TLS": "1"}, ClientTls()),
        ({"FLEETEST_TLS_CA": "/ca.pem"}, ClientTls(ca=Path("/ca.pem"))),
        ({"FLEETEST_TLS_SERVER_NAME": "m"}, ClientTls(server_name="m")),
        ({"FLEETEST_TLS": "0", "FLEETEST_TLS_CA": "/ca.pem"}, None),
    ],
)
def test_tls_is_used_when_it_is_switched_on_or_set_up(environment, used):
    assert read_settings(TlsSettings, environment).tls == used


def test_half_a_pair_is_said(authority):
    with pytest.raises(InvalidRequest, match="come together"):
        ClientTls(certificate=authority.issue().certificate).check()
