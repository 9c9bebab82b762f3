"""Runs the steps of one file: one client, one set of variables, for as long as pytest keeps the file set up."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import httpx

from fleetest.common.results import Assertion
from fleetest.common.suite.durations import format_duration
from fleetest.worker.checks.authentication import Authentication
from fleetest.worker.checks.documents import introspection_query, schema_of_introspection
from fleetest.worker.checks.exchange import Exchange, NoResponse, send
from fleetest.worker.checks.expectations import judge
from fleetest.worker.checks.json_paths import at_path
from fleetest.worker.checks.json_values import ABSENT, text_of
from fleetest.worker.checks.model import CaptureModel, StepModel
from fleetest.worker.checks.placeholders import Missing, filled
from fleetest.worker.checks.requests import Credentials, build_request, joined, operation_of
from fleetest.worker.checks.scenario import Scenario

if TYPE_CHECKING:
    from graphql import GraphQLSchema

__all__ = ["Outcome", "ScenarioSession"]

_SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)KEY$|_KEY_", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """
    What became of a step.

    Args:
        exchange: the last request and its response; `None` when none came.
    """

    assertions: list[Assertion] = field(default_factory=list)
    exchange: Exchange | None = None

    @property
    def failed(self) -> list[Assertion]:
        return [each for each in self.assertions if not each.passed]

    def refuse(self, name: str, message: str) -> None:
        """Note what kept the step from going on."""
        self.assertions.append(Assertion(name=name, passed=False, message=message))


class ScenarioSession:
    """
    Attributes:
        outcomes: of the steps that have run, by their number.
        secrets: texts that must not be shown.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.outcomes: dict[int, Outcome] = {}
        given = scenario.surroundings
        self.secrets = {
            value for name, value in given.env.items() if _SECRET_NAME.search(name) or name in given.secrets
        }
        self._scenario = scenario
        self._variables = scenario.variables()
        self._note_secrets()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._context = _tls(scenario)
        self._client = httpx.AsyncClient(
            verify=self._context,
            timeout=None,  # noqa: S113 - each exchange as a whole has a limit
            headers={"user-agent": "fleetest"},
        )
        base_url = text_of(filled(scenario.base_url, self._variables))
        self._authentication = Authentication(self._client, base_url, on_secret=self.secrets.add)
        self._schema: GraphQLSchema | str | None = scenario.documents.schema

    def close(self) -> None:
        """Close the connections; what the steps have left is gone."""
        try:
            self._runner.run(self._client.aclose())
        finally:
            self._runner.close()

    def run_earlier(self, number: int) -> None:
        """Run those steps before this one that have not run yet: they may make what it needs."""
        for earlier in range(number):
            if earlier not in self.outcomes:
                self.run(earlier)

    def run(self, number: int) -> Outcome:
        """Run a step, again if it has run before."""
        outcome = self.outcomes[number] = Outcome()
        try:
            self._runner.run(self._run(number, outcome))
        except Missing as error:
            outcome.refuse("variables", f"{error}{self._why_missing(str(error), number)}")
        except NoResponse as error:
            outcome.refuse("response", str(error))
        except (httpx.InvalidURL, ValueError) as error:
            outcome.refuse("request", f"it cannot be made: {error}")
        return outcome

    async def _run(self, number: int, outcome: Outcome) -> None:
        step = self._scenario.steps[number]
        if not await self._fits_schema(number, step, outcome):
            return
        if step.poll is not None:
            await self._poll(number, step, outcome)
        else:
            outcome.exchange = await self._send(number, step)
            outcome.assertions += self._judged(number, step, outcome.exchange)
        if outcome.exchange is not None:
            self._capture(step, outcome.exchange, outcome)

    def _judged(self, number: int, step: StepModel, exchange: Exchange) -> list[Assertion]:
        schema = self._scenario.schemas.get((number, "expect"))
        found = judge(step.expect, exchange, step, self._variables, schema)
        if step.subscribe is not None:
            expected, came = step.subscribe.messages, len(exchange.json())
            message = "" if came >= expected else f"expected {expected}, found {came}"
            found.insert(0, Assertion(name="messages", passed=came >= expected, message=message))
        return found

    async def _poll(self, number: int, step: StepModel, outcome: Outcome) -> None:
        """Ask until it is answered as expected; then, and when time is over, the rest is looked at."""
        assert step.poll is not None
        poll, until = step.poll, step.poll.until
        schema = self._scenario.schemas.get((number, "until"))
        ends_at = time.monotonic() + poll.timeout.total_seconds()
        tries = 0
        while True:
            tries += 1
            problem = ""
            try:
                outcome.exchange = await self._send(number, step)
            except NoResponse as error:
                problem, verdicts = str(error), []
            else:
                judged = self._judged(number, step, outcome.exchange)
                verdicts = judged if until is None else judge(until, outcome.exchange, step, self._variables, schema)
                if all(each.passed for each in verdicts):
                    outcome.assertions += judged
                    return
            if time.monotonic() + poll.interval.total_seconds() > ends_at:
                break
            await asyncio.sleep(poll.interval.total_seconds())
        times = "1 request" if tries == 1 else f"{tries} requests"
        outcome.refuse("poll", f"not as expected after {times} in {format_duration(poll.timeout)}")
        if problem:
            raise NoResponse(problem)
        outcome.assertions += verdicts

    async def _send(self, number: int, step: StepModel) -> Exchange:
        model = self._scenario.model
        limit = step.timeout or model.timeout
        auth = step.auth if "auth" in step.model_fields_set else model.auth
        credentials = await self._authentication.credentials(auth, self._variables, limit)
        if step.subscribe is not None:
            return await self._subscribe(number, step, credentials, limit)
        request = await build_request(self._client, self._scenario, number, self._variables, credentials)
        follow = model.follow_redirects if step.follow_redirects is None else step.follow_redirects
        return await send(self._client, request, limit=limit, follow_redirects=follow)

    async def _subscribe(self, number: int, step: StepModel, credentials: Credentials, limit: timedelta) -> Exchange:
        from fleetest.worker.checks.subscription import subscribed

        assert step.subscribe is not None
        request = await build_request(self._client, self._scenario, number, self._variables, credentials)
        ours = {name.lower() for name in [*self._scenario.model.headers, *step.headers, *credentials.headers]}
        return await subscribed(
            str(request.url),
            operation_of(step.subscribe, self._scenario.documents.texts[number], self._variables),
            payload=filled(step.subscribe.payload, self._variables),
            headers={name: value for name, value in request.headers.items() if name in {*ours, "cookie"}},
            context=self._context,
            messages=step.subscribe.messages,
            limit=limit,
        )

    async def _fits_schema(self, number: int, step: StepModel, outcome: Outcome) -> bool:
        """Whether the document of a step, if it has one, is one that the endpoint's schema allows."""
        documents = self._scenario.documents
        if step.operation is None or not documents.introspect:
            return True
        if self._schema is None or isinstance(self._schema, str):
            self._schema = await self._introspect(number)
        if isinstance(self._schema, str):
            hint = "Name a file by `schema`, or write `schema: none`."
            outcome.refuse("document", f"it cannot be checked: {self._schema}. {hint}")
            return False
        problems = documents.problems(number, self._schema)
        outcome.assertions.append(Assertion(name="document", passed=not problems, message="\n".join(problems)))
        return not problems

    async def _introspect(self, number: int) -> GraphQLSchema | str:
        model, step = self._scenario.model, self._scenario.steps[number]
        auth = step.auth if "auth" in step.model_fields_set else model.auth
        credentials = await self._authentication.credentials(auth, self._variables, model.timeout)
        base_url, endpoint, headers = (
            filled(each, self._variables)
            for each in (self._scenario.base_url, model.endpoint, {**model.headers, **step.headers})
        )
        request = self._client.build_request(
            "POST",
            joined(text_of(base_url), text_of(endpoint)),
            params=dict(credentials.query) or None,
            headers={**credentials.headers, **{name: text_of(value) for name, value in headers.items()}},
            json={"query": introspection_query()},
        )
        exchange = await send(self._client, request, limit=model.timeout, follow_redirects=model.follow_redirects)
        try:
            answer = exchange.json()
            if not isinstance(answer, dict) or not answer.get("data"):
                return f"the endpoint does not answer introspection (status {exchange.status})"
            return schema_of_introspection(answer["data"])
        except ValueError as error:
            return f"the endpoint does not answer introspection: {error}"

    def _capture(self, step: StepModel, exchange: Exchange, outcome: Outcome) -> None:
        for name, capture in step.capture.items():
            try:
                value = self._captured(capture, exchange)
            except ValueError as error:
                outcome.refuse(f"capture {name}", str(error))
            else:
                self._variables.define(name, value)
        self._note_secrets()

    def _captured(self, capture: CaptureModel, exchange: Exchange) -> Any:
        if capture.json_ is not None:
            path = text_of(filled(capture.json_, self._variables))
            value = at_path(path, exchange.json())
            if value is ABSENT:
                raise ValueError(f"there is nothing at {path}")
            return value
        if capture.header is not None:
            header = exchange.header(capture.header)
            if header is None:
                raise ValueError(f"there is no header {capture.header}")
            return header
        assert capture.regex is not None
        match = re.search(capture.regex, exchange.text)
        if match is None:
            raise ValueError(f"nothing in the body matches {capture.regex}")
        return match[1] if match.re.groups else match[0]

    def _note_secrets(self) -> None:
        for name in self._scenario.model.secrets:
            try:
                self.secrets.add(text_of(self._variables.value(name)))
            except Missing:
                continue  # to be captured yet

    def _why_missing(self, message: str, number: int) -> str:
        for earlier, step in enumerate(self._scenario.steps[:number]):
            if any(f"${{{name}}}" in message for name in step.capture):
                failed = self.outcomes.get(earlier)
                return f", which step '{step.name}' {'did not capture' if failed else 'captures'}"
        return ""


def _tls(scenario: Scenario) -> ssl.SSLContext:
    verify = scenario.model.verify
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=scenario.files.find(verify))
    return _usual_tls(verify)


@cache
def _usual_tls(verify: bool) -> ssl.SSLContext:  # noqa: FBT001 - httpx's own signature
    """One for all files: to read the certificates of all authorities takes longer than most files of checks."""
    return httpx.create_ssl_context(verify=verify)
