"""`FLEETEST_BLOBS_URL`: which store it names, and what it may say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import Secret

__all__ = ["BlobsUrl", "parse_blobs_url"]

_HINT: Final = (
    "FLEETEST_BLOBS_URL reads s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX or "
    "file:///DIRECTORY, with options such as ?region=eu-west-1"
)
_COMMON: Final = frozenset({"skip_signature"})
_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "s3": _COMMON
    | {
        "access_key_id",
        "disable_bulk_delete",
        "endpoint",
        "region",
        "secret_access_key",
        "server_side_encryption",
        "session_token",
        "sse_kms_key_id",
        "virtual_hosted_style_request",
    },
    "gs": _COMMON | {"base_url", "bearer_token", "service_account", "service_account_key"},
    "az": _COMMON | {"account_key", "client_id", "client_secret", "endpoint", "sas_key", "tenant_id", "use_azure_cli"},
    "file": frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobsUrl:
    """
    A store and a place in it.

    Args:
        scheme: `s3`, `gs`, `az` or `file`.
        container: the bucket, or Azure's container.
        account: Azure's; else empty.
        prefix: below which all lies; empty means everywhere.
        options: as obstore names them. They may hold credentials.
        directory: of `file` alone.
    """

    scheme: str
    container: str = ""
    account: str = ""
    prefix: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    directory: Path | None = None

    @property
    def shown(self) -> str:
        """As it may be shown: without options."""
        if self.directory is not None:
            return str(self.directory)
        return f"{self.scheme}://" + "/".join(part for part in (self.account, self.container, self.prefix) if part)

    @property
    def endpoint(self) -> str:
        """Where the store answers, when that is said."""
        return self.options.get("endpoint") or self.options.get("base_url") or ""


def parse_blobs_url(url: Secret) -> BlobsUrl:
    """
    Raises:
        InvalidRequest: it names no store. No message holds anything of a credential.
    """
    parts = urlsplit(url.reveal())
    if parts.scheme not in _OPTIONS:
        raise InvalidRequest("not the URL of a blob store: it begins with another scheme", hint=_HINT)
    if "@" in parts.netloc:
        raise InvalidRequest(
            "the URL of the blob store holds a user or password, which none of the stores knows",
            hint="give credentials as the store's own environment variables, such as AWS_ACCESS_KEY_ID, or as options",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(name for name in options if name not in _OPTIONS[parts.scheme])
    if unknown:
        there_are = ", ".join(sorted(_OPTIONS[parts.scheme])) or "none"
        raise InvalidRequest(
            f"the URL of the blob store has an option that {parts.scheme}:// does not: {unknown[0]}",
            hint=f"there are: {there_are}",
        )
    return _read(parts, options)


def _read(parts: SplitResult, options: Mapping[str, str]) -> BlobsUrl:
    path = unquote(parts.path).strip("/")
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not path:
            raise InvalidRequest("the URL of the blob store names no directory of this machine", hint=_HINT)
        return BlobsUrl(scheme="file", directory=Path("/", path))
    account = ""
    container, prefix = parts.netloc, path
    if parts.scheme == "az":
        account = parts.netloc
        container, _, prefix = path.partition("/")
    if not container or (parts.scheme == "az" and not account):
        raise InvalidRequest("the URL of the blob store names no bucket or container", hint=_HINT)
    return BlobsUrl(scheme=parts.scheme, container=container, account=account, prefix=prefix, options=options)
