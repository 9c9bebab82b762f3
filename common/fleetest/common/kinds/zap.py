"""
Scans by ZAP: it runs a plan of its Automation Framework, and its JSON report is their results: alerts.

The plan is as https://www.zaproxy.org/docs/desktop/addons/automation-framework says. It is run rather than ZAP's
packaged scans, as these want a directory of their own at a fixed place in the container.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from fleetest.common.kinds.heredoc import escaped, written
from fleetest.common.kinds.kind import Work
from fleetest.common.reports import Risk
from fleetest.common.suite.fields import BY_VALUE, Arguments, RelativePath, Text, refused
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.section import Section
from fleetest.common.tasks import ReportOptions, RunnerType

__all__ = ["Zap", "ZapKeys"]

_IMAGE: Final = "ghcr.io/zaproxy/zaproxy:stable"
_REPORT: Final = "zap-report.json"
_PAGE: Final = "zap-report.html"
_PLAN: Final = "zap-plan.yaml"
_URL: Final = re.compile(r"(https?://|\$\{[A-Za-z_][A-Za-z0-9_]*\})[^\s\"'<>\\`]*", re.ASCII)
_VARIABLE: Final = re.compile(r"\\(\$\{[A-Za-z_][A-Za-z0-9_]*\})", re.ASCII)


def _url(text: str) -> str:
    if text and not _URL.fullmatch(text):
        hint = "Write https://shop.test/path, or ${NAME} for a variable of the environment that has it."
        raise refused(Fault(message=f"'{text[:60]}' is not a URL of HTTP", hint=hint))
    return text


_Url = Annotated[Text, AfterValidator(_url)]


class ZapKeys(Section):
    """Keys of a scan by ZAP."""

    target: _Url = Field("", description="The URL to scan; `${NAME}` in it is a variable of the environment.")
    plan: RelativePath = Field("", description=f"Instead of `target`: an automation plan that writes {_REPORT}.")
    scan: Literal["baseline", "full"] = Field(
        "baseline", description="`baseline` only looks at what it finds; `full` attacks."
    )
    openapi: Text = Field("", description="An OpenAPI document of the target: a URL, or a file of the workspace.")
    minutes: int = Field(1, ge=1, le=1440, description="How long it looks for pages and, for `full`, attacks.")
    fail_level: Annotated[Risk, BY_VALUE] = Field(Risk.MEDIUM, description="Alerts of this risk on are failures.")
    args: Arguments = Field([], description="Further options of zap.sh: a list, or a text split as a shell does.")


class Zap:
    """Fulfils `Kind` for scans by ZAP."""

    name = "zap"
    keys = ZapKeys
    one_of: tuple[str, ...] = ("target", "plan")
    example = "target: http://localhost:8080"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: ZapKeys) -> Work:
        report = f"**/{_REPORT}"
        plan = written(_PLAN, _as_text(_plan(keys)), expand=True) if keys.target else ""
        run = (
            f'zap.sh -cmd -dir "$(mktemp -d)" {shlex.join(keys.args)} -autorun "$PWD"/{shlex.quote(keys.plan or _PLAN)}'
        )
        lines = f"{plan}{run}\ncode=$?\n[ $code = 2 ] || exit $code  # 2: it has warnings"
        return Work(
            runner=RunnerType.COMMAND,
            shell=lines,
            reports=(report,),
            report_options={report: ReportOptions(form="zap", fail_level=keys.fail_level.value)},
            artifacts=(report, f"**/{_PAGE}"),
            image=_IMAGE,
        )


def _as_text(plan: dict[str, Any]) -> str:
    """JSON, which is YAML too; variables of the environment are left to the shell."""
    return _VARIABLE.sub(r"\1", escaped(json.dumps(plan, indent=1)))


def _plan(keys: ZapKeys) -> dict[str, Any]:
    full = keys.scan == "full"
    here = "${PWD}"
    jobs = [
        *([_job("openapi", **_document(keys.openapi), targetUrl=keys.target)] if keys.openapi else []),
        _job("spider", maxDuration=keys.minutes),
        _job("passiveScan-wait", maxDuration=10),
        *([_job("activeScan", maxScanDurationInMins=keys.minutes)] if full else []),
        _job("report", template="traditional-json", reportDir=here, reportFile=_REPORT),
        _job("report", template="traditional-html", reportDir=here, reportFile=_PAGE),
    ]
    return {
        "env": {
            "contexts": [{"name": "target", "urls": [keys.target]}],
            "parameters": {"failOnError": True, "failOnWarning": False, "progressToStdout": True},
        },
        "jobs": jobs,
    }


def _job(kind: str, **parameters: object) -> dict[str, Any]:
    return {"type": kind, "parameters": parameters}


def _document(place: str) -> dict[str, str]:
    return {"apiUrl": place} if place.startswith(("http://", "https://", "${")) else {"apiFile": f"${{PWD}}/{place}"}
