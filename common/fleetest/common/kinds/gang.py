"""The keys of tasks whose shards start together, for any kind that has such tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from fleetest.common.suite.fields import BY_VALUE, switch_as_mapping
from fleetest.common.suite.section import Section
from fleetest.common.tasks import OnLost

__all__ = ["Gang", "GangModel"]


class GangModel(Section):
    """That the shards of a task start together."""

    on_lost: Annotated[OnLost, BY_VALUE] = Field(
        OnLost.ABORT,
        description="When one is lost, all begin again (`abort`); once they have begun, the others go on (`continue`), "
        "or the task ends (`end`).",
    )


Gang = Annotated[GangModel | None, BeforeValidator(switch_as_mapping, json_schema_input_type=bool | GangModel)]
