"""What the worker has asked the master for, and whether it has been answered."""

from __future__ import annotations

from fleetest.common.tasks import Resources
from fleetest.worker.messages import Assign, Want
from fleetest.worker.slots import Credit

__all__ = ["Wants"]


class Wants:
    """
    The worker's side of the credit protocol: the newest want replaces the one before, and what an answer leaves of it
    stays open. Numbers grow over the life of the agent.
    """

    def __init__(self) -> None:
        self._number = 0
        self._standing: Credit | None = None  # what the master may still give
        self._answered = False

    @property
    def answered(self) -> bool:
        """Whether the master has said what there is for the newest want, or that one needs no answer."""
        return self._answered

    def forget(self) -> None:
        """A new stream begins: its master knows of no want."""
        self._standing, self._answered = None, False

    def says(self, credit: Credit) -> bool:
        """Whether the standing want says the same."""
        return self._standing is not None and not credit.is_news_after(self._standing)

    def ask(self, credit: Credit, *, hungry: bool) -> Want | None:
        """The want to send; `None` when the standing one says the same. Only who is hungry waits to be answered."""
        if self.says(credit):
            return None
        self._number += 1
        self._standing, self._answered = credit, not hungry
        return Want(
            number=self._number,
            shards=credit.shards,
            free=credit.free,
            warm_environment_keys=credit.warm_environment_keys,
            unhurried=not hungry,
            ahead=credit.ahead,
        )

    def take(self, assign: Assign) -> None:
        """
        Take note of an answer. One to an older want crossed the newest on its way, which is still to be answered.
        """
        standing = self._standing
        if standing is None or assign.want_number != self._number:
            return
        taking = [each for each in assign.assignments if not each.follows]
        given = Resources.total([each.reserve for each in taking])
        taken = {each.spec.environment_key for each in assign.assignments}  # where one is warm, the attempt goes there
        self._standing = Credit(
            shards=standing.shards - len(taking),
            free=standing.free - given,
            warm_environment_keys=tuple([key for key in standing.warm_environment_keys if key not in taken]),
            ahead=standing.ahead,
        )
        self._answered = True
