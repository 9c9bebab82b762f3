"""What an attempt says, masked and bounded on its way to the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from types import MappingProxyType
from typing import Final

import msgspec

from fleetest.common.coverage import FileCoverage
from fleetest.common.limits import MAX_OUTPUT_BYTES, MAX_RESULT_TEXT_BYTES
from fleetest.common.load import LoadSample
from fleetest.common.masking import Masker
from fleetest.common.results import Artifact, CaseResult, PlannedCase
from fleetest.worker.assignments import AttemptRef, Ended
from fleetest.worker.common_start import CommonStart
from fleetest.worker.outbox import Outbox
from fleetest.worker.reports import (
    ArtifactsLeft,
    CoverageMeasured,
    HandedBack,
    Loaded,
    Output,
    Planned,
    Report,
    ReportBody,
    Results,
    Running,
)

__all__ = ["AttemptReporter"]

_SURELY_SHORT: Final = MAX_RESULT_TEXT_BYTES // 4
"""No character takes more than four bytes."""

_SMALL_BYTES: Final = 100
"""About what a report takes besides its texts."""

_FILES_AT_ONCE: Final = 500
"""Of coverage: a report of them is not larger than one of results."""

_NO_SECRETS: Final = Masker(())
_UNMASKED: Final = _NO_SECRETS.stream()
_RUNNING: Final = Running()


class AttemptReporter:
    """
    The `Reporter` of one attempt.

    Every text, the output included, is without the attempt's secrets; output and texts are cut to their limits, and
    said to be. What is said after the end is dropped.

    Attributes:
        started: whether the attempt's tests have started.
        notes: what was said for people then.
        failed: whether a result was not good.
    """

    def __init__(
        self,
        ref: AttemptRef,
        *,
        secrets: Mapping[str, str],
        outbox: Outbox,
        common_start: CommonStart | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self.started = False
        self.notes: Sequence[str] = ()
        self.failed = False
        self._ref = ref
        self._outbox = outbox
        self._common_start = common_start
        self._masker = Masker(secrets.values()) if secrets else _NO_SECRETS
        self._masked_output = self._masker.stream() if secrets else _UNMASKED
        self._output_bytes = 0
        self._max_output_bytes = max_output_bytes
        self._output_truncated = False
        self._ended = False
        self._start: asyncio.Event | None = None

    async def start(self) -> None:
        """Returns when the attempt's tests have started."""
        if not self.started:
            self._start = self._start or asyncio.Event()
            await self._start.wait()

    def running(self, notes: Sequence[str] = (), variables: Mapping[str, str] = MappingProxyType({})) -> None:
        if self.started:
            return
        self.started, self.notes = True, notes
        if self._start is not None:
            self._start.set()
        self._say(Running(variables=dict(variables)) if variables else _RUNNING)

    async def common_start(self) -> None:
        if self._common_start is not None:
            await self._common_start.reached()

    def begin(self, after: timedelta) -> None:
        """The master tells when the gang's shards begin. The first word stands."""
        if self._common_start is not None:
            self._common_start.set(after)

    def planned(
        self,
        cases: Sequence[PlannedCase],
        *,
        deselected: int,
        collection_errors: Sequence[CaseResult],
        fingerprints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        text = self._masker.text
        self._say(
            Planned(
                cases=tuple(
                    PlannedCase(
                        case_id=text(case.case_id), file=text(case.file), line=case.line, group=text(case.group)
                    )
                    for case in cases
                ),
                deselected=deselected,
                collection_errors=tuple(map(self._fit, collection_errors)),
                fingerprints={text(file): digest for file, digest in fingerprints.items()},
            ),
            _SMALL_BYTES * len(cases),
        )

    def result(self, result: CaseResult) -> None:
        self.failed = self.failed or result.outcome.bad
        length = len(result.message) + len(result.details) + len(result.stdout) + len(result.stderr) + len(result.log)
        if length > _SURELY_SHORT or self._masker.masks:
            result = self._fit(result)
        self._say(Results(results=(result,)), _SMALL_BYTES + length)

    def handed_back(self, case_ids: Sequence[str]) -> None:
        self._say(HandedBack(case_ids=tuple(map(self._masker.text, case_ids))))

    def output(self, content: bytes) -> None:
        self._show(self._masked_output.feed(content))

    def loaded(self, sample: LoadSample) -> None:
        if self._masker.masks:
            named = tuple(replace(each, name=self._masker.text(each.name)) for each in sample.requests)
            sample = replace(sample, requests=named)
        size_bytes = sum(len(each.name) + len(each.histogram) for each in sample.requests)
        self._say(Loaded(sample=sample), _SMALL_BYTES + size_bytes)

    def artifacts(self, artifacts: Sequence[Artifact], problems: Sequence[str]) -> None:
        text = self._masker.text
        self._say(
            ArtifactsLeft(
                artifacts=tuple(
                    replace(artifact, path=text(artifact.path), case_id=text(artifact.case_id))
                    for artifact in artifacts
                ),
                problems=tuple(map(text, problems)),
            )
        )

    def coverage_measured(self, files: Mapping[str, FileCoverage]) -> None:
        masked = iter(self._masked_paths(files).items())
        while part := dict(islice(masked, _FILES_AT_ONCE)):
            self._say(CoverageMeasured(files=part))

    def coverage_combined(self, files: Mapping[str, FileCoverage]) -> None:
        self._say(CoverageMeasured(files=self._masked_paths(files), combined=True))

    def _masked_paths(self, files: Mapping[str, FileCoverage]) -> dict[str, FileCoverage]:
        return {self._masker.text(path): file for path, file in files.items()}

    def ended(self, ended: Ended, *, more_soon: bool = False) -> Ended:
        """
        The attempt's last word; answers it without secrets, fit for logs.

        Args:
            more_soon: whether others will end within a moment, with which it may be told.
        """
        if self._masker.masks:
            self._show(self._masked_output.close())
            text = self._masker.text
            ended = msgspec.structs.replace(
                ended,
                reason=text(ended.reason),
                missing=tuple(map(text, ended.missing)),
                extra=tuple(map(text, ended.extra)),
            )
        self._say(ended, more_soon=more_soon)
        self._ended = True
        return ended

    def _show(self, content: bytes) -> None:
        if not content or self._output_truncated:
            return
        offset = self._output_bytes
        kept = content[: self._max_output_bytes - offset]
        self._output_bytes += len(kept)
        self._output_truncated = len(kept) < len(content)
        self._say(Output(offset_bytes=offset, content=kept, truncated=self._output_truncated), len(kept))

    def _fit(self, result: CaseResult) -> CaseResult:
        """The result without secrets, its texts within their limits."""
        text = self._masker.text
        texts = result.message, result.details, result.stdout, result.stderr, result.log
        whole = [text(each) for each in texts]
        message, details, stdout, stderr, log = kept = [_without_middle(each) for each in whole]
        return msgspec.structs.replace(
            result,
            case_id=text(result.case_id),
            message=message,
            details=details,
            stdout=stdout,
            stderr=stderr,
            log=log,
            file=text(result.file),
            uncacheable=text(result.uncacheable),
            truncated=result.truncated or kept != whole,
            properties={text(name): text(value) for name, value in result.properties.items()},
            assertions=tuple(
                msgspec.structs.replace(each, name=text(each.name), message=text(each.message))
                for each in result.assertions
            ),
        )

    def _say(self, body: ReportBody, size_bytes: int = _SMALL_BYTES, *, more_soon: bool = False) -> None:
        if not self._ended:
            self._outbox.add(Report(ref=self._ref, body=body), size_bytes, more_soon=more_soon)


def _without_middle(text: str) -> str:
    if len(text) <= _SURELY_SHORT:
        return text
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= MAX_RESULT_TEXT_BYTES:
        return text
    note = f"\n[... {len(encoded) - MAX_RESULT_TEXT_BYTES} bytes and more were cut out here ...]\n"
    half = (MAX_RESULT_TEXT_BYTES - len(note)) // 2
    return encoded[:half].decode("utf-8", "ignore") + note + encoded[-half:].decode("utf-8", "ignore")
