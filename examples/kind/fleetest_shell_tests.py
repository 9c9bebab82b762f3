"""
A kind of test of one's own: every shell script is a case.

Shows all that a kind can say: which keys its tasks have, how its cases are found, what is started for those of a shard,
and where their results are read from.
"""

from __future__ import annotations

import shlex

from pydantic import Field

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.fields import Line, RelativePath
from fleetest.common.suite.section import Section
from fleetest.common.tasks import RunnerType

_REPORT = "shell-tests.xml"
_RUN = """
printf '<testsuite>' > {report}
while IFS= read -r script; do
    echo "== $script"
    if {shell} "$script"; then verdict=''; else verdict="<failure message='exit code $?'/>"; fi
    printf "<testcase name='%s'>%s</testcase>" "$script" "$verdict" >> {report}
done < "$FLEETEST_CASES_FILE"
printf '</testsuite>' >> {report}
"""


class ShellTestsKeys(Section):
    """Keys of a task of this kind."""

    directory: RelativePath = Field(description="Where the scripts are, at any depth.")
    shell: Line = Field("sh", description="What runs them.")


class ShellTests:
    """Fulfils `fleetest.common.kinds.kind.Kind`."""

    name = "shell-tests"
    keys = ShellTestsKeys
    one_of: tuple[str, ...] = ()
    example = "directory: tests"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: ShellTestsKeys) -> Work:
        return Work(
            runner=RunnerType.COMMAND,
            cases=f"find {shlex.quote(keys.directory)} -name '*.sh' | sort",
            shell=_RUN.format(report=_REPORT, shell=shlex.quote(keys.shell)),
            reports=(_REPORT,),
        )
