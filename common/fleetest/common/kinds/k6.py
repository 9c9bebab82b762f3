"""k6 scripts: `k6 run` runs them, and its summary is their results: thresholds and checks."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from fleetest.common.kinds.heredoc import written
from fleetest.common.kinds.kind import Work
from fleetest.common.reports.k6_thresholds import parse_threshold
from fleetest.common.suite.fields import Arguments, Line, RelativePath, as_list, refused
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.section import Section
from fleetest.common.tasks import ReportOptions, RunnerType

__all__ = ["K6", "K6Keys"]

_IMAGE: Final = "grafana/k6:latest"
_SUMMARY: Final = "k6-summary.json"
_SAMPLES: Final = "k6-samples.json"
_CONFIG: Final = "k6-config.json"


def _judged(source: str) -> str:
    if parse_threshold(source) is None:
        hint = "Write an aggregation, a comparison and a number: p(95)<500, rate<0.01, count>=100."
        raise refused(Fault(message=f"'{source[:60]}' is not a threshold of k6", hint=hint))
    return source


_Threshold = Annotated[Line, AfterValidator(_judged)]
_Thresholds = Annotated[
    list[_Threshold], BeforeValidator(as_list, json_schema_input_type=list[_Threshold] | _Threshold)
]


class K6Keys(Section):
    """Keys of a k6 task."""

    script: RelativePath = Field(description="The script.")
    vus: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="Virtual users.")
    duration: Annotated[Line, Field(pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$")] | None = Field(
        None, description="How long, as k6 writes it: 30s, 1m30s."
    )
    thresholds: dict[Line, _Thresholds] = Field(
        {}, description="By metric, for a script without any: `http_req_duration: p(95)<500`."
    )
    samples: bool = Field(default=False, description=f"Keep every sample, as the artifact {_SAMPLES}.")
    args: Arguments = Field([], description="Further options of k6 run: a list, or a text split as a shell does.")


class K6:
    """Fulfils `Kind` for k6 scripts."""

    name = "k6"
    keys = K6Keys
    one_of: tuple[str, ...] = ("script",)
    example = "script: load.js"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: K6Keys) -> Work:
        command = ["k6", "run", "--summary-export", _SUMMARY]
        command += ["--config", _CONFIG] if keys.thresholds else []
        command += ["--vus", str(keys.vus)] if keys.vus is not None else []
        command += ["--duration", keys.duration] if keys.duration is not None else []
        command += ["--out", f"json={_SAMPLES}"] if keys.samples else []
        run = shlex.join([*command, *keys.args, keys.script])
        config = written(_CONFIG, json.dumps({"thresholds": keys.thresholds})) if keys.thresholds else ""
        lines = f"{config}exec {run}"
        report = f"**/{_SUMMARY}"
        return Work(
            runner=RunnerType.COMMAND,
            shell=lines,
            reports=(report,),
            report_options={report: ReportOptions(form="k6")},
            artifacts=(report, *([f"**/{_SAMPLES}"] if keys.samples else [])),
            image=_IMAGE,
            env={"K6_NO_USAGE_REPORT": "true"},
        )
