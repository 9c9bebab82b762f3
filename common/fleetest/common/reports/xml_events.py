"""
Reads XML in pieces, without building a tree, and without doing what the XML asks for.

No document type and no entity is accepted; elements nest only so deep, and no tag may be longer than a bound. Several
documents in one file, one after the other, are read as one: some tools append their suites without a root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, Protocol
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import errors

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from fleetest.common.reports.ports import Unreadable
from fleetest.common.results import CaseResult

__all__ = ["XmlHandler", "xml_cases"]

MAX_DEPTH: Final = 1000
MAX_TAG_BYTES: Final = 16 << 20
"""A start tag with all its attributes is in memory as a whole."""

MAX_NAMES: Final = 10_000
"""The parser keeps every name of an element or attribute that it has met."""

MAX_DOCUMENTS: Final = 1000
"""In one file: each costs a parser of its own."""

_CHUNK_BYTES: Final = 64 << 10
_LOOK_BACK_BYTES: Final = 1 << 10

_NEXT_DOCUMENT: Final = frozenset(
    {
        errors.codes[errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT],
        errors.codes[errors.XML_ERROR_MISPLACED_XML_PI],
    }
)


class XmlHandler(Protocol):
    """Makes cases of what an XML report holds. Names come without their namespaces."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """
        Raises:
            Unreadable: this is no report of its format.
        """

    def text(self, text: str) -> None:
        """A piece of the text in the innermost element."""

    def end(self, tag: str) -> None: ...

    def take(self) -> Iterable[CaseResult]:
        """The cases that have come together since it was last asked."""


def xml_cases(stream: BinaryIO, handler: XmlHandler) -> Iterator[CaseResult]:
    """
    Feed a stream to a handler, and yield its cases.

    Raises:
        Unreadable: it is not XML, or not of a kind that is accepted.
    """
    feeding = _feed(stream, handler)
    try:
        for _ in feeding:
            yield from handler.take()
    except Unreadable:
        yield from handler.take()
        raise
    yield from handler.take()


def _feed(stream: BinaryIO, handler: XmlHandler) -> Iterator[None]:
    """Piece by piece. Raises as `xml_cases`."""
    document = _Document(handler)
    documents, line, previous = 1, 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        while chunk:
            rest = document.feed(chunk, previous, line)
            if rest is None:
                previous, chunk = chunk[-_LOOK_BACK_BYTES:], b""
                continue
            documents += 1
            if documents > MAX_DOCUMENTS:
                raise Unreadable(f"more than {MAX_DOCUMENTS} documents one after the other", line=line)
            line += document.line - 1
            document, chunk, previous = _Document(handler), rest, b""
        yield
    document.close(line)


class _Document:
    """One root element and what is in it."""

    def __init__(self, handler: XmlHandler) -> None:
        self._guard = _Guard(handler)
        self._parser = XMLParser(target=self._guard, forbid_dtd=True)
        self._expat: Any = self._parser.parser  # it knows where it is
        self._fed_bytes = 0
        self._stalled_bytes = 0

    @property
    def line(self) -> int:
        return int(self._expat.ErrorLineNumber)

    def feed(self, chunk: bytes, previous: bytes, line: int) -> bytes | None:
        """
        Read on; answers what begins with the next document, if there is one.

        Args:
            previous: what came right before, or the end of that.
            line: how many lines came before this document.
        """
        before = self._guard.events
        try:
            self._parser.feed(chunk)
        except ParseError as error:
            if self._guard.root_closed and error.code in _NEXT_DOCUMENT:
                at = self._expat.ErrorByteIndex - (self._fed_bytes - len(previous))
                if at >= 0:
                    return (previous + chunk)[at:]
            raise _unreadable(error, line) from error
        except DefusedXmlException as error:
            raise Unreadable(
                f"a document type or an entity is declared ({type(error).__name__})", line=line + self.line
            ) from error
        except Unreadable as error:
            error.line = error.line or line + int(self._expat.CurrentLineNumber)
            raise
        except (ValueError, LookupError, UnicodeError) as error:
            raise Unreadable(f"not readable as XML: {error}", line=0) from error
        self._fed_bytes += len(chunk)
        self._stalled_bytes = 0 if self._guard.events > before else self._stalled_bytes + len(chunk)
        if self._stalled_bytes > MAX_TAG_BYTES:
            raise Unreadable(f"a tag is longer than {MAX_TAG_BYTES >> 20} MiB", line=line + self.line)
        return None

    def close(self, line: int) -> None:
        """The stream has ended."""
        try:
            self._parser.close()
        except ParseError as error:
            raise _unreadable(error, line) from error
        except Unreadable as error:
            error.line = error.line or line + int(self._expat.CurrentLineNumber)
            raise
        except (ValueError, LookupError, DefusedXmlException) as error:
            raise Unreadable(f"not readable as XML: {error}") from error


class _Guard:
    """The parser's target: lets pass what is within bounds."""

    def __init__(self, handler: XmlHandler) -> None:
        self._handler = handler
        self._depth = 0
        self._names: dict[str, str] = {}
        self._namespaces = False
        self.events = 0
        self.root_closed = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.events += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable(f"elements are nested deeper than {MAX_DEPTH}")
        names = self._names
        for name in attributes:
            if name not in names:
                self._named(name)
        if self._namespaces:
            attributes = {names[name]: value for name, value in attributes.items()}
        self._handler.start(names.get(tag) or self._named(tag), attributes)

    def data(self, text: str) -> None:
        self.events += 1
        self._handler.text(text)

    def end(self, tag: str) -> None:
        self.events += 1
        self._depth -= 1
        self.root_closed = not self._depth
        self._handler.end(self._names[tag])

    def close(self) -> None:
        """There is no tree to answer."""

    def _named(self, name: str) -> str:
        if len(self._names) >= MAX_NAMES:
            raise Unreadable(f"more than {MAX_NAMES} different names of elements and attributes")
        local = self._names[name] = name.rpartition("}")[2]
        self._namespaces = self._namespaces or local != name
        return local


def _unreadable(error: ParseError, line: int) -> Unreadable:
    return Unreadable(f"not XML: {str(error.msg).partition(': line')[0]}", line=line + error.position[0])
