"""
ZAP's traditional JSON report, with or without requests and responses.

Source: https://www.zaproxy.org/docs/desktop/addons/report-generation/report-traditional-json. Each kind of alert at a
site is a case; where it was found is in its details. A site without alerts is a case that passed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from fleetest.common.reports.bounds import bounded_case, whole_number
from fleetest.common.reports.json_values import EACH, as_dict, as_list, as_text, json_values
from fleetest.common.reports.ports import ReadOptions, Risk, Unreadable
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["read_zap"]

_RISKS: Final = tuple(Risk)
_FALSE_POSITIVE: Final = "0"
_MOST_INSTANCES: Final = 50
_NAMES: Final = frozenset({("site", EACH, "@name"), ("site", "@name")})
_ALERTS: Final = frozenset({("site", EACH, "alerts", EACH), ("site", "alerts", EACH)})
_HEAD: Final = frozenset({("@version",), ("@programName",)})
_WANTED: Final = _NAMES | _ALERTS | _HEAD
_MOST_SITES: Final = 10_000
_TAG: Final = re.compile(r"<[^<>]{0,1000}>")
_KNOWN: Final = (("confidence", "confidence"), ("cweid", "cwe"), ("wascid", "wasc"), ("pluginid", "plugin"))


def read_zap(stream: BinaryIO, options: ReadOptions) -> Iterator[CaseResult]:
    """Fulfils `ReportReader`."""
    sites: dict[tuple[int, ...], _Site] = {}
    found = False
    for each in json_values(stream, lambda path: path in _WANTED):
        found = True
        if each.path in _HEAD:
            continue
        site = sites.setdefault(each.places[:1] if each.path[1] == EACH else (), _Site())
        if each.path in _NAMES:
            site.name = as_text(each.value)
        else:
            site.alerts += 1
            yield _case(site.name, as_dict(each.value), options)
        if len(sites) > _MOST_SITES:
            raise Unreadable(f"more than {_MOST_SITES} sites")
    if not found:
        raise Unreadable("not a report of ZAP: it has neither a version nor a site")
    for site in sites.values():
        if not site.alerts:
            yield bounded_case(case_id=f"{site.name}::(no alerts)", outcome=Outcome.PASSED)


@dataclass(slots=True)
class _Site:
    name: str = ""
    alerts: int = 0


def _case(site: str, alert: Mapping[str, Any], options: ReadOptions) -> CaseResult:
    rank = whole_number(as_text(alert.get("riskcode")))
    risk = _RISKS[min(rank, len(_RISKS) - 1)]
    instances = [as_dict(each) for each in as_list(alert.get("instances"))]
    outcome = Outcome.FAILED if risk.rank >= options.fail_level.rank else Outcome.PASSED
    message = f"{as_text(alert.get('riskdesc')) or risk.value}: {as_text(alert.get('count')) or len(instances)} found"
    if as_text(alert.get("confidence")) == _FALSE_POSITIVE:
        outcome, message = Outcome.SKIPPED, "marked as a false positive"
    known = {name: as_text(alert.get(key)) for key, name in _KNOWN}
    reference = as_text(alert.get("alertRef")) or as_text(alert.get("pluginid"))
    name = as_text(alert.get("name")) or as_text(alert.get("alert")) or "unnamed alert"
    return bounded_case(
        case_id=f"{site}::{name}" + (f" [{reference}]" if reference else ""),
        outcome=outcome,
        message=message,
        details=_details(alert, instances),
        properties={"risk": risk.value, **{name: value for name, value in known.items() if value}},
    )


def _details(alert: Mapping[str, Any], instances: list[dict[str, Any]]) -> str:
    parts = [_prose(alert.get("desc"))]
    found = [_instance(each) for each in instances[:_MOST_INSTANCES]]
    if len(instances) > _MOST_INSTANCES:
        found.append(f"and {len(instances) - _MOST_INSTANCES} more")
    parts.append("\n".join(found))
    more = {key: _prose(alert.get(key)) for key in ("solution", "reference", "otherinfo")}
    parts += [f"{key}: {text}" for key, text in more.items() if text]
    return "\n\n".join(filter(None, parts))


def _instance(instance: Mapping[str, Any]) -> str:
    line = f"{as_text(instance.get('method'))} {as_text(instance.get('uri'))}".strip()
    for key in ("param", "attack", "evidence"):
        if text := as_text(instance.get(key)):
            line += f"\n    {key}: {text[:500]}"
    return line


def _prose(value: Any) -> str:
    """What ZAP writes as HTML."""
    return html.unescape(_TAG.sub("", as_text(value).replace("</p>", "\n"))).strip()
