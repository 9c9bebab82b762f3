"""What a Docker Engine says that went wrong, in Fleetest's words."""

from __future__ import annotations

import re
from typing import Final

from fleetest.common.errors import (
    CapacityExceeded,
    DependencyUnavailable,
    FleetestError,
    Forbidden,
    InvalidRequest,
    NotFound,
    WrongState,
)

__all__ = ["EngineGone", "MountFailed", "engine_error", "engine_gone", "image_error"]

_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REFUSED: Final = re.compile(
    r"unauthorized|authentication required|no basic auth|denied|forbidden|\b401\b|\b403\b", re.IGNORECASE
)
_ABSENT: Final = re.compile(
    r"manifest unknown|manifest for .* not found|name unknown|repository .*not found|invalid reference format|"
    r"no such image|\b404\b",
    re.IGNORECASE,
)
# What registries say of a repository that is another's, and many of one that does not exist.
_ABSENT_OR_REFUSED: Final = re.compile(r"pull access denied|does not exist or no pull access", re.IGNORECASE)
_FULL: Final = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_MOUNT: Final = re.compile(r"error while mounting volume|failed to mount local volume", re.IGNORECASE)
_NO_SUBNET: Final = re.compile(
    r"non-overlapping IPv4 address pool|address pools have been fully subnetted", re.IGNORECASE
)
_PORT_TAKEN: Final = re.compile(r"port is already allocated|address already in use", re.IGNORECASE)
_NO_SHELL: Final = re.compile(r'exec: "?/bin/sh"?: (stat|no such file)|"/bin/sh": .*no such file', re.IGNORECASE)


class EngineGone(DependencyUnavailable):
    """The Engine does not answer; it may be starting again."""


class MountFailed(DependencyUnavailable):
    """A volume could not be mounted, or not be seen."""


def engine_error(status: int | None, said: str, *, doing: str) -> FleetestError:
    """
    The error for an answer of the Engine.

    Args:
        status: of HTTP, if there was an answer.
        said: the Engine's own explanation.
        doing: what it was asked, as in "the Engine could not ...".
    """
    said = said.strip()
    text = f"the Docker Engine could not {doing}: {said}"
    if known := _known_error(text, said):
        return known
    if status == _NOT_FOUND:
        return NotFound(text)
    if status == _CONFLICT:
        return WrongState(text)
    return DependencyUnavailable(text)


def _known_error(text: str, said: str) -> FleetestError | None:
    if _FULL.search(said):
        return CapacityExceeded(text, hint="The disk of the Engine, or of the worker, is full: free some space.")
    if _NO_SHELL.search(said):
        return InvalidRequest(
            f"the image has no /bin/sh: {said}",
            hint="Tasks in containers are started through a shell; use an image that has one.",
        )
    if _NO_SUBNET.search(said):
        hint = "Remove networks that nobody uses (`docker network prune`), or give it more `default-address-pools`."
        return CapacityExceeded(text, hint=hint)
    if _PORT_TAKEN.search(said):
        hint = "`publish: auto` takes a free one."
        return InvalidRequest(f"a port that it publishes is somebody else's: {said}", hint=hint)
    return MountFailed(text) if _MOUNT.search(said) else None


def image_error(image: str, status: int | None, said: str) -> FleetestError:
    """The error for an image that could not be pulled; arguments as for `engine_error`."""
    said = said.strip()
    if _FULL.search(said):
        return engine_error(status, said, doing=f"pull the image {image}")
    if _ABSENT_OR_REFUSED.search(said):
        return InvalidRequest(
            f"its registry has no image {image}, or refuses it: {said}",
            hint="Look at its name. For a private one the worker needs credentials: `docker login` there.",
        )
    if _ABSENT.search(said):
        return InvalidRequest(f"there is no image {image}: {said}", hint="Look at its name and tag.")
    if _REFUSED.search(said):
        return Forbidden(
            f"the registry refuses the image {image}: {said}",
            hint="Give the worker credentials: `docker login` there, or DOCKER_CONFIG with a config.json.",
        )
    return DependencyUnavailable(
        f"the image {image} could not be pulled: {said}", hint="Its registry does not answer the worker's Engine."
    )


def engine_gone(address: str, error: BaseException) -> EngineGone:
    """The Engine does not answer."""
    return EngineGone(
        f"the Docker Engine at {address} does not answer: {error}",
        hint="Start it, or name another with DOCKER_HOST.",
    )
