"""Workers that asked for work in vain: the queue has nothing for them, as far as this master knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from fleetest.common.tasks import Resources
from fleetest.master.queue.ports import Bid
from fleetest.master.sessions import Session

__all__ = ["TurnedDown"]


class TurnedDown:
    """Remembers who was turned down, and with how much room, until there is news: something that nobody was offered."""

    def __init__(self) -> None:
        self._news = 0
        self._rooms: dict[Session, Resources | None] = {}
        self._asking: set[Session] = set()

    def hear_news(self) -> None:
        """There may be work that nobody was offered yet, or will be in a moment."""
        self._news += 1
        self._rooms.clear()

    @property
    def news(self) -> int:
        """Grows with each piece of news."""
        return self._news

    @contextmanager
    def asking(self, sessions: Iterable[Session]) -> Iterator[None]:
        """The queue is asked for these; until the context ends they may be given what they were not told of yet."""
        self._asking = set(sessions)
        try:
            yield
        finally:
            self._asking = set()

    def turn_down(self, session: Session, room: Resources | None) -> None:
        """
        Args:
            room: what it had left; `None`: nothing waits that it could ever take.
        """
        self._rooms[session] = room

    def forget_over(self) -> None:
        """Workers that have another stream by now are others."""
        self._rooms = {session: room for session, room in self._rooms.items() if not session.over}

    def in_vain(self, session: Session, bid: Bid) -> bool:
        """Whether the worker was turned down with as much room as it has now, and nothing has come since."""
        if session not in self._rooms:
            return False
        room = self._rooms[session]
        return room is None or bid.free.fits(room)

    def idle(self, sessions: Iterable[Session]) -> Sequence[Session]:
        """Those for whom nothing waits, whatever room they have: what comes for them now passes nobody over."""
        return [session for session in sessions if self._is_idle(session)]

    def _is_idle(self, session: Session) -> bool:
        return session not in self._asking and session in self._rooms and self._rooms[session] is None
