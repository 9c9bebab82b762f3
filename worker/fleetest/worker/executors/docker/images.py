"""The images that containers are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fleetest.common.errors import InvalidRequest, NotFound
from fleetest.common.tasks import Pull
from fleetest.worker.executors.docker.engine import Engine, Image

__all__ = ["Images"]


class Images:
    """Brings images to the Engine, each by one caller at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(self, image: str, pull: Pull, *, output: Callable[[bytes], None]) -> Image:
        """
        An image that is on the Engine's machine.

        Args:
            output: hears of it when the image is pulled, as that may take long.

        Raises:
            InvalidRequest: there is no such image.
            Forbidden: its registry refuses it.
            CapacityExceeded, DependencyUnavailable
        """
        async with self._locks.setdefault(image, asyncio.Lock()):
            if pull is not Pull.ALWAYS:
                try:
                    return await self._engine.image(image)
                except NotFound as error:
                    if pull is Pull.NEVER:
                        raise InvalidRequest(
                            f"the image {image} is not on the worker's machine, and the task says `pull: never`",
                            hint="Put it there, or let the task pull it: `pull: missing`.",
                        ) from error
            output(f"pulling the image {image}\n".encode())
            await self._engine.pull(image)
            return await self._engine.image(image)
