"""
The pytest plugin that makes a session resident: it collects once, then runs the cases that the agent names.

pytest keeps the fixtures of a module or a session alive as long as the next case needs them, so a case runs only when
the next one is known, or when the agent says that there is none for now.
"""

from __future__ import annotations

import faulthandler
import os
import traceback
from bisect import bisect_right
from collections import deque
from typing import Any, Deque, Dict, List, Set, Tuple

import pytest

__all__ = ["ResidentPlugin"]

_BATCH = 500


class _Canary:
    """A low descriptor that nobody else uses: when it is gone, so are others."""

    def __init__(self) -> None:
        self._fstat = os.fstat
        self._descriptor, self._other = os.pipe()
        self._inode = self._fstat(self._descriptor).st_ino

    def is_dead(self) -> bool:
        """Whether somebody closed it, or put something else in its place."""
        try:
            return bool(self._fstat(self._descriptor).st_ino != self._inode)
        except OSError:
            return True


class ResidentPlugin:
    """
    See `channel.py` for what is said to the agent, and when.

    Args:
        fingerprints: makes `Fingerprints` of the session, the workspace and the collected modules; `None` when nobody
            asks for them.
        witness: tells whether results may be cached; `None` when nothing is cached.
        measuring: measures coverage; `None` when nothing does.
    """

    def __init__(
        self,
        channel: Any,
        claims: Any,
        marks: Any,
        outcome: Any,
        config: Dict[str, Any],
        put_off: Any,
        locations: Any,
        fingerprints: Any = None,
        witness: Any = None,
        measuring: Any = None,
    ) -> None:
        self._channel, self._claims, self._marks, self._outcome = channel, claims, marks, outcome
        self._put_off, self._locations = put_off, locations
        self._fingerprints, self._witness, self._measuring = fingerprints, witness, measuring
        self._modules: List[str] = []
        self._limit = config["text_limit_bytes"]
        self._seed = config["seed"]
        self._workspace = os.path.realpath(config["workspace"])
        # Parameters may be paths, and each session has its own: what they are called must be the same everywhere.
        self._own_paths = [(self._workspace, "<workspace>"), (config["workspace"], "<workspace>")]
        if os.environ.get("TMPDIR"):
            self._own_paths.append((os.environ["TMPDIR"], "<tmp>"))
        self._deselected = 0
        self._items: Dict[str, Any] = {}
        self._seen: Dict[str, int] = {}
        self._places: Dict[str, Tuple[str, int]] = {}
        self._named = 0
        self._ends: List[int] = []  # of what was named at once: the number after its last
        self._waiting: Deque[Tuple[int, str]] = deque()
        self._kept_alive_for: Any = None  # the item for whose sake the last one left fixtures
        self._have_run: Set[str] = set()
        self._reports: List[Any] = []
        self._flush = self._end = False
        self._canary = _Canary()
        descriptor = os.open(config["dump_file"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._dump = os.fdopen(channel.move_high(descriptor), "w")
        faulthandler.register(config["dump_signal"], file=self._dump, all_threads=True, chain=False)

    # -- options of other plugins that cannot hold here

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: Any) -> None:
        option = config.option
        option.usepdb = option.trace = False
        if hasattr(option, "numprocesses"):  # xdist: the cluster distributes, a session runs in itself
            option.numprocesses, option.tx, option.dist = 0, [], "no"
        if getattr(option, "randomly_seed", None) == "default":
            option.randomly_seed = self._seed
        order_seed = str(getattr(option, "random_order_seed", ""))
        if order_seed.startswith("default"):  # what comes before the number says that nobody asked for shuffling
            option.random_order_seed = order_seed.rstrip("0123456789") + str(self._seed)

    # -- collection

    def pytest_deselected(self, items: Any) -> None:
        self._deselected += len(items)

    def pytest_collectreport(self, report: Any) -> None:
        if report.nodeid and "::" not in report.nodeid:
            self._modules.append(report.nodeid)
        if report.outcome == "passed":
            return
        case_id = self._outcome.bounded(report.nodeid or "collection", self._limit)[0]
        if case_id in self._seen:  # a file may be collected twice, as a module and for its doctests
            return
        self._seen[case_id] = 1
        result = self._outcome.collected_result(case_id, case_id.partition("::")[0], report, self._limit)
        self._channel.send(dict(result, event="collect_error" if report.outcome == "failed" else "collect_skip"))

    def _unique(self, node_id: str) -> str:
        for path, name in self._own_paths:
            node_id = node_id.replace(path, name)
        clean = self._outcome.bounded(node_id, self._limit)[0]
        count = self._seen[clean] = self._seen.get(clean, 0) + 1
        return clean if count == 1 else f"{clean} #{count}"

    @staticmethod
    def _group(item: Any) -> str:
        names = set()
        for mark in item.iter_markers("xdist_group"):
            names.add(str(mark.args[0] if mark.args else mark.kwargs.get("name", "default")))
        return "_".join(sorted(names))

    def _send_collection(self, session: Any) -> None:
        cases = []
        for item in session.items:
            case_id = self._unique(item.nodeid)
            self._items[case_id], self._places[case_id] = item, self._locations.of(item)
            cases.append([case_id, *self._places[case_id], self._group(item)])
        for start in range(0, len(cases), _BATCH):
            self._channel.send({"event": "collected", "cases": cases[start : start + _BATCH]})
        if self._fingerprints is not None:
            self._send_fingerprints(session)
        keep_going = bool(session.config.option.continue_on_collection_errors)
        mark = self._mark(session)
        self._channel.send({"event": "ready", "deselected": self._deselected, "keep_going": keep_going, "mark": mark})

    def _send_fingerprints(self, session: Any) -> None:
        of_files: Dict[str, List[Any]] = {}
        for case_id, item in self._items.items():
            of_files.setdefault(self._places[case_id][0], []).append(item)
        files, problem = {}, ""
        try:
            root = str(session.config.rootpath)
            modules = [os.path.join(root, node_id) for node_id in self._modules]
            files = self._fingerprints(session, self._workspace, modules).of_files(of_files)
        except Exception:  # noqa: BLE001 - tests run as well without: nothing of them is cached then
            problem = self._outcome.bounded(traceback.format_exc(), self._limit)[0]
        self._channel.send({"event": "fingerprints", "files": files, "problem": problem})

    # -- the loop

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        self._send_collection(session)
        self._put_off.end()
        while True:
            self._take_messages(session)
            if self._waiting:
                number, case_id = self._waiting.popleft()
                if self._claims.begin(number):
                    self._keep_alive_only_for(session, self._items[case_id])
                    following = self._kept_alive_for = self._items[self._waiting[0][1]] if self._waiting else None
                    self._run(session, case_id, following, number)
            elif self._end:
                self._channel.flush()
                return True

    def _take_messages(self, session: Any) -> None:
        """Take what has come, and wait for more until there is something to do."""
        self._apply(session, self._channel.receive(wait=False))
        while not (self._end or len(self._waiting) > 1 or (self._waiting and self._flush)):
            if self._flush:
                self._keep_alive_only_for(session, None)
            self._apply(session, self._channel.receive(wait=True))

    def _apply(self, session: Any, messages: List[Dict[str, Any]]) -> None:
        for message in messages:
            if "run" in message:
                self._waiting.extend(enumerate(message["run"], self._named))
                self._named += len(message["run"])
                self._ends.append(self._named)
                self._flush = False
            elif "drop" in message:
                self._waiting = deque(each for each in self._waiting if each[0] not in message["drop"])
            elif "flush" in message:
                self._flush = True
            elif "clear" in message:
                self._clear(session)
            elif "end" in message:
                self._end = True

    def _clear(self, session: Any) -> None:
        problem = ""
        if self._waiting:
            self._waiting.clear()
            problem = self._tear_down(session, None)
        self._channel.send({"event": "cleared", "problem": problem})

    def _keep_alive_only_for(self, session: Any, item: Any) -> None:
        """What was to follow the last case was taken back: another follows, or for now nothing does."""
        if self._kept_alive_for is not None and self._kept_alive_for is not item:
            problem = self._tear_down(session, item)
            if problem:
                self._channel.send({"event": "untidy", "problem": problem})

    def _tear_down(self, session: Any, item: Any) -> str:
        """Tear down what `item` does not need; answers what that had to say."""
        self._kept_alive_for = None
        self._channel.flush()
        try:
            session._setupstate.teardown_exact(item)  # noqa: SLF001 - pytest offers no other way
        except BaseException:  # noqa: BLE001 - a fixture's teardown may raise anything; no case is left to blame
            return str(self._outcome.bounded(traceback.format_exc(), self._limit)[0])
        return ""

    def _run(self, session: Any, case_id: str, following: Any, number: int) -> None:
        item = self._items[case_id]
        self._make_fresh(case_id, item)
        self._reports = []
        self._channel.send({"event": "start", "id": case_id})
        if self._witness is not None:
            self._witness.begin_case()
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except (KeyboardInterrupt, pytest.exit.Exception) as stop:
            self._leave_forked_child(1)
            name = "KeyboardInterrupt" if isinstance(stop, KeyboardInterrupt) else "pytest.exit"
            self._stop_in_case(case_id, name, stop)
            raise
        self._leave_forked_child(0)
        result = self._outcome.result(case_id, self._places[case_id], self._reports, self._limit)
        self._reports = []
        if self._witness is not None:
            result["uncacheable"] = self._outcome.bounded(self._witness.end_case(), self._limit)[0]
        if self._measuring is not None and self._is_last_of_an_attempt(number):
            self._measuring.hand_in_at_times()  # before the result, at which the attempt ends
        result.update(event="done", mark=self._mark(session))
        self._channel.send_soon(result)  # the next case, if there is one, starts now
        if self._canary.is_dead():
            # The test closed what is not its own, pytest's capture among it. What follows runs in a new session.
            self._channel.flush()
            self._channel.leave(1)
        if session.shouldfail:
            self._send_stopped("limit", str(session.shouldfail))
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            self._send_stopped("limit", str(session.shouldstop))
            raise session.Interrupted(session.shouldstop)

    def _is_last_of_an_attempt(self, number: int) -> bool:
        """Whether the case that follows, if one does, was named with others."""
        return bool(self._waiting) and bisect_right(self._ends, number) != bisect_right(self._ends, self._waiting[0][0])

    def _mark(self, session: Any) -> int:
        """Set a mark behind all that pytest has written."""
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            session.config.get_terminal_writer().flush()
        return int(self._marks.set())

    def _make_fresh(self, case_id: str, item: Any) -> None:
        """A case that runs again gets a new instance of its class, as the first time."""
        if case_id in self._have_run and isinstance(item, pytest.Function) and isinstance(item.parent, pytest.Class):
            for name in ("_instance", "_obj"):
                item.__dict__.pop(name, None)
        self._have_run.add(case_id)

    def _stop_in_case(self, case_id: str, name: str, stop: BaseException) -> None:
        reason = f"{name}: {stop}".rstrip(": ")
        result = self._outcome.result(case_id, self._places[case_id], self._reports, self._limit)
        if result["outcome"] in ("passed", "error"):  # its call was cut short: only the setup has a report
            result["outcome"] = "failed"
            result["message"] = self._outcome.bounded(reason, self._limit)[0].partition("\n")[0]
        self._channel.send(dict(result, event="done"))
        self._send_stopped("exit", reason)

    def _send_stopped(self, kind: str, reason: str) -> None:
        text = self._outcome.bounded(reason, self._limit)[0]
        self._channel.send({"event": "stopped", "kind": kind, "reason": text})

    def _leave_forked_child(self, code: int) -> None:
        if self._channel.in_forked_child():
            self._channel.leave(code)

    # -- what pytest says of the case that runs

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        self._reports = []  # a plugin that runs a case again starts it again

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        self._leave_forked_child(0 if report.outcome == "passed" else 1)
        if report.outcome == "rerun":
            self._reports = []
        else:
            # Judged when the case is over: other plugins may still change it.
            self._reports.append(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: Any, excinfo: Any) -> None:
        self._leave_forked_child(1)
        crash = getattr(excrepr, "reprcrash", None)
        text = str(crash.message) if crash is not None else str(excinfo.value)
        self._send_stopped("internal", "pytest's internal error: " + text.partition("\n")[0])
