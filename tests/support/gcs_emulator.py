"""
Serves gcp-storage-emulator on a port that it prints, with those parts of Google's XML API that it lacks.

It speaks the JSON API; obstore speaks the XML one, of which the emulator has GET and PUT of non-empty objects. Added
here, as Google documents them, on the emulator's own storage: HEAD, DELETE, lists, uploads in parts, and 401 for the
bearer token `wrong`. Run by the emulator's own interpreter: python gcs_emulator.py BUCKET
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.handlers.objects import _checksums, _make_object_resource
from gcp_storage_emulator.storage import Storage

_lock = threading.Lock()
_parts: dict[str, dict[int, bytes]] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, storage: Storage, *args: object) -> None:
        self._storage = storage
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        if self._key:
            self._get()
        else:
            self._list()

    def do_PUT(self) -> None:
        content = self._content()
        if "uploadId" in self._query:
            _parts[self._query["uploadId"][0]][int(self._query["partNumber"][0])] = content
            self._answer(headers={"ETag": f'"part-{self._query["partNumber"][0]}"'})
        else:
            self._create(content)

    def do_POST(self) -> None:
        content = self._content()
        if "uploads" in self._query:
            upload_id = f"upload-{time.monotonic_ns()}"
            _parts[upload_id] = {}
            self._xml(
                f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
            )
            return
        parts = _parts.pop(self._query["uploadId"][0])
        numbers = [int(each.text or "") for each in ET.fromstring(content).iter() if "PartNumber" in each.tag]
        self._create(b"".join(parts[number] for number in numbers), completes=True)

    def do_DELETE(self) -> None:
        if "uploadId" in self._query:
            _parts.pop(self._query["uploadId"][0], None)
            self._answer(HTTPStatus.NO_CONTENT)
            return
        try:
            with _lock:
                self._storage.delete_file(self._bucket, self._key)
        except NotFound:
            self._no_such("Key")
        else:
            self._answer(HTTPStatus.NO_CONTENT)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    @property
    def _bucket(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[0]

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _get(self) -> None:
        try:
            with _lock:
                known = self._storage.get_file_obj(self._bucket, self._key)
                content = self._storage.get_file(self._bucket, self._key)
        except NotFound:
            self._no_such("Key")
            return
        headers = {"ETag": f'"{known["etag"]}"', "x-goog-generation": known["generation"]}
        status = HTTPStatus.OK
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(content)) if last else len(content)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
            status, content = HTTPStatus.PARTIAL_CONTENT, content[int(first) : end]
        self._answer(status, content, headers)

    def _list(self) -> None:
        try:
            with _lock:
                found, _ = self._storage.get_file_list(self._bucket, self._query.get("prefix", [""])[0])
        except NotFound:
            self._no_such("Bucket")
            return
        entries = "".join(
            f"<Contents><Key>{escape(each['name'])}</Key><LastModified>{each['updated']}</LastModified>"
            f'<ETag>"{each["etag"]}"</ETag><Size>{each["size"]}</Size></Contents>'
            for each in found
        )
        self._xml(f"<ListBucketResult>{entries}<IsTruncated>false</IsTruncated></ListBucketResult>")

    def _create(self, content: bytes, *, completes: bool = False) -> None:
        host, port = self.server.server_address[:2]
        known = _make_object_resource(
            f"http://{host}:{port}", self._bucket, self._key, "application/octet-stream", str(len(content))
        )
        try:
            with _lock:
                self._storage.create_file(self._bucket, self._key, content, _checksums(content, known))
        except NotFound:
            self._no_such("Bucket")
            return
        headers = {"ETag": f'"{known["etag"]}"', "x-goog-generation": known["generation"]}
        if completes:
            self._xml(
                f"<CompleteMultipartUploadResult><ETag>{known['etag']}</ETag></CompleteMultipartUploadResult>", headers
            )
        else:
            self._answer(headers=headers)

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _no_such(self, what: str) -> None:
        self._answer(HTTPStatus.NOT_FOUND, f"<Error><Code>NoSuch{what}</Code></Error>".encode())

    def _xml(self, text: str, headers: dict[str, str] | None = None) -> None:
        self._answer(HTTPStatus.OK, text.encode(), {"Content-Type": "application/xml"} | (headers or {}))

    def _answer(
        self, status: HTTPStatus = HTTPStatus.OK, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        if self.headers.get("Authorization") == "Bearer wrong":
            status, content, headers = HTTPStatus.UNAUTHORIZED, b"<Error><Code>Unauthorized</Code></Error>", {}
        self.send_response(status)
        for name, value in {"Last-Modified": self.date_time_string(), **(headers or {})}.items():
            self.send_header(name, value)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status is not HTTPStatus.NO_CONTENT:
            self.wfile.write(content)


def main() -> None:
    storage = Storage(use_memory_fs=True)
    create_bucket(sys.argv[1], storage)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, storage))
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # until whoever started it lets go, or is gone


if __name__ == "__main__":
    main()
