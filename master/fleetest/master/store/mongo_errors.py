"""What PyMongo's errors mean to us, and what a person can do about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, InvalidRequest

__all__ = ["DUPLICATE_KEY", "closed", "explained", "failed_writes", "unconfirmed"]

DUPLICATE_KEY: Final = 11000


class _Meaning(NamedTuple):
    error: type[FleetestError]
    message: str
    hint: str


_FULL: Final = _Meaning(
    CapacityExceeded,
    "no room left for the store {where}",
    "free some space on the disk of that MongoDB, or drop the logs of old runs",
)
_TOO_LARGE: Final = _Meaning(CapacityExceeded, "a value is too large for the store {where}", "")
_READ_ONLY: Final = _Meaning(
    DependencyUnavailable,
    "the store {where} cannot be written",
    "it is a secondary, or was made read-only: let FLEETEST_MONGODB_URL name the whole replica set "
    "(?replicaSet=NAME, without directConnection), and see that the set has a primary",
)
_REFUSED: Final = _Meaning(
    DependencyUnavailable,
    "the store {where} refuses our user or password",
    "check both in FLEETEST_MONGODB_URL, percent-encoded, and its authSource (the database that knows the user)",
)
_FORBIDDEN: Final = _Meaning(
    DependencyUnavailable,
    "the store {where} does not let our user do this",
    "give the user of FLEETEST_MONGODB_URL the role readWrite on that database",
)
_UNREACHABLE: Final = _Meaning(
    DependencyUnavailable,
    "the store {where} does not answer",
    "Is it running, and does FLEETEST_MONGODB_URL name it? Nothing is lost: work goes on when it is back.",
)
_SLOW: Final = _Meaning(
    DependencyUnavailable,
    "the store {where} did not confirm in time",
    "see whether a majority of its replica set is up and keeps pace; what was not confirmed is looked for again",
)

# By number, since names came later: https://www.mongodb.com/docs/manual/reference/error-codes/
_MEANINGS: Final[dict[int, _Meaning]] = {
    14031: _FULL,  # OutOfDiskSpace
    10334: _TOO_LARGE,  # BSONObjectTooLarge
    17419: _TOO_LARGE,  # an update would make the document so
    17420: _TOO_LARGE,
    10107: _READ_ONLY,  # NotWritablePrimary
    10058: _READ_ONLY,  # its older name
    13435: _READ_ONLY,  # NotPrimaryNoSecondaryOk
    13436: _READ_ONLY,  # NotPrimaryOrSecondary
    189: _READ_ONLY,  # PrimarySteppedDown
    371: _READ_ONLY,  # UserWritesBlocked
    18: _REFUSED,  # AuthenticationFailed
    11: _REFUSED,  # UserNotFound
    8000: _REFUSED,  # what Atlas calls both
    13: _FORBIDDEN,  # Unauthorized
    6: _UNREACHABLE,  # HostUnreachable
    7: _UNREACHABLE,  # HostNotFound
    89: _UNREACHABLE,  # NetworkTimeout
    91: _UNREACHABLE,  # ShutdownInProgress
    9001: _UNREACHABLE,  # SocketException
    133: _UNREACHABLE,  # FailedToSatisfyReadPreference
    11600: _UNREACHABLE,  # InterruptedAtShutdown
    11601: _UNREACHABLE,  # Interrupted
    11602: _UNREACHABLE,  # InterruptedDueToReplStateChange
    43: _UNREACHABLE,  # CursorNotFound: it ended with its server, or with the partition that it read
    175: _UNREACHABLE,  # QueryPlanKilled: likewise
    50: _SLOW,  # MaxTimeMSExpired
    64: _SLOW,  # WriteConcernTimeout
    100: _SLOW,  # UnsatisfiableWriteConcern
    202: _SLOW,  # NetworkInterfaceExceededTimeLimit
    262: _SLOW,  # ExceededTimeLimit
}


def explained(error: Exception, where: str) -> Exception:
    """
    The error of our own tree for one that PyMongo, or the encoding of a value, raised.

    What has no meaning here, as a mistake in a command has none, comes back as it is. No message holds a password:
    PyMongo's errors name hosts, and the URL's are not explained here but where it is read.

    Args:
        where: the store, without credentials.
    """
    if isinstance(error, FleetestError):
        return error
    if isinstance(error, InvalidOperation) and "close" in str(error):
        return closed(where)
    meaning = _meaning_of(error)
    if meaning is not None:
        message = f"{meaning.message.format(where=where)} ({_words_of(error)})"
        return _caused(meaning.error(message, hint=meaning.hint), error)
    if isinstance(error, OverflowError | UnicodeError | BSONError):
        return _caused(InvalidRequest(f"not a value that the store can hold: {error}"), error)
    return error


def closed(where: str) -> DependencyUnavailable:
    """What whoever comes too late is told."""
    return DependencyUnavailable(f"the store {where} has been closed")


def failed_writes(error: BulkWriteError) -> Mapping[int, Mapping[str, Any]]:
    """Of a bulk write, the errors of those that failed, by their place in it."""
    return {each["index"]: each for each in error.details["writeErrors"]}


def unconfirmed(error: BulkWriteError) -> bool:
    """Whether those writes that did not fail may be lost again."""
    return bool(error.details["writeConcernErrors"])


def _meaning_of(error: Exception) -> _Meaning | None:
    if isinstance(error, DocumentTooLarge):
        return _TOO_LARGE
    for code in _codes_of(error):
        if code in _MEANINGS:
            return _MEANINGS[code]
    if isinstance(error, NotPrimaryError):
        return _READ_ONLY
    if isinstance(error, ConnectionFailure | ConfigurationError):  # a name that does not resolve is the latter
        return _UNREACHABLE
    if isinstance(error, PyMongoError) and error.timeout:
        return _SLOW
    return None


def _codes_of(error: Exception) -> list[int]:
    """What the server says, the worst first: in a bulk, its writes come before their confirmation."""
    if isinstance(error, BulkWriteError):
        failures = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        return [code for each in failures if (code := each.get("code")) != DUPLICATE_KEY]
    if isinstance(error, NotPrimaryError):
        details = error.details
        return [details["code"]] if isinstance(details, Mapping) and "code" in details else []
    if isinstance(error, OperationFailure) and error.code is not None:
        return [error.code]
    return []


def _words_of(error: Exception) -> str:
    """The server's own words, without the picture of the whole topology that PyMongo adds."""
    if isinstance(error, BulkWriteError):
        failures = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        return str(failures[0].get("errmsg", "no reason given")) if failures else "no reason given"
    if isinstance(error, OperationFailure):
        return str((error.details or {}).get("errmsg", error))
    words = str(error)
    if isinstance(error, ServerSelectionTimeoutError):
        words = words.partition(", Timeout:")[0]
    return words.partition(", full error:")[0] or type(error).__name__


def _caused(mapped: FleetestError, error: Exception) -> FleetestError:
    mapped.__cause__ = error
    return mapped
