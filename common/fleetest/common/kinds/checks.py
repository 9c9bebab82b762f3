"""REST and GraphQL checks: files of scenarios, which a pytest plugin of ours collects (`fleetest.worker.checks`)."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.fields import BY_VALUE, RelativePaths, Text, refused
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.section import Section
from fleetest.common.tasks import RunnerType, Split

__all__ = ["CheckKeys", "Graphql", "GraphqlKeys", "Rest"]

_PLUGIN: Final = "fleetest.worker.checks.plugin"
_VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,99}"


def _address(url: str) -> str:
    if url and not url.startswith(("http://", "https://", "${")):
        raise refused(Fault(message=f"'{url[:60]}' is not an address", hint="It begins with http:// or https://."))
    return url


def _variable(name: str) -> str:
    if not re.fullmatch(_VARIABLE, name):
        hint = "A letter or _ first, then letters, digits, _ and -."
        raise refused(Fault(message=f"'{name[:60]}' cannot name a variable", hint=hint))
    return name


class CheckKeys(Section):
    """Keys of a task of REST checks."""

    files: RelativePaths = Field(["**/*.rest.yaml"], min_length=1, description="Globs of the files of checks.")
    base_url: Annotated[Text, AfterValidator(_address)] = Field(
        "", description="What paths in the files are relative to, instead of the files' own `base_url`."
    )
    variables: dict[Annotated[str, AfterValidator(_variable)], Any] = Field(
        {}, description="Values for `${name}`, instead of the files' own of that name."
    )
    split: Annotated[Split, BY_VALUE] = Field(Split.FILE, description="What must stay together in one shard.")
    maxfail: int = Field(0, ge=0, le=1_000_000, description="Stop the task after so many failures; 0 means never.")


class GraphqlKeys(CheckKeys):
    """Keys of a task of GraphQL checks."""

    files: RelativePaths = Field(["**/*.graphql.yaml"], min_length=1, description="Globs of the files of checks.")


class Rest:
    """Fulfils `Kind` for REST checks."""

    name = "rest"
    keys: type[CheckKeys] = CheckKeys
    one_of: tuple[str, ...] = ()
    example = "files: tests/api/*.rest.yaml"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: CheckKeys) -> Work:
        options = [f"--checks-files={glob}" for glob in keys.files]
        options += [f"--checks-variable={name}={json.dumps(value)}" for name, value in keys.variables.items()]
        if keys.base_url:
            options.append(f"--checks-base-url={keys.base_url}")
        return Work(runner=RunnerType.PYTEST, args=("-p", _PLUGIN, *options), split=keys.split, maxfail=keys.maxfail)


class Graphql(Rest):
    """Fulfils `Kind` for GraphQL checks."""

    name = "graphql"
    keys = GraphqlKeys
    example = "files: tests/api/*.graphql.yaml"
