from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetest.common.errors import InvalidRequest
from fleetest.common.kinds.registry import kind_names
from fleetest.common.suite import Problem, SuiteInvalid, drafts, load_suite

NOT_A_KIND = f"type: text 'pytst' is not one of {', '.join(kind_names())}"
HEAD = "version: 1\nname: demo\n"


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(SuiteInvalid) as caught:
        load_suite(text, source="fleetest.yaml")
    return caught.value.problems


def check(marked: str, message: str, hint: str | None = None) -> None:
    """The suite has one problem, at the sign «, with this message, and this in its hint."""
    before, sign, after = marked.partition("«")
    assert sign

    (problem,) = problems_of(before + after)

    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert (problem.line, problem.column, problem.message) == (line, column, message)
    assert hint is None or hint in problem.hint


@pytest.mark.parametrize(
    ("marked", "message", "hint"),
    [
        ("«name: x\ntasks: {a: {run: x}}", "key 'version' is missing", None),
        ("«version: 1\nname: x", "key 'tasks' is missing", None),
        ("version: «2\nname: x\ntasks: {a: {run: x}}", "version: this Fleetest reads version 1, not 2", "`version: 1`"),
        ("version: «true\nname: x\ntasks: {a: {run: x}}", "version: must be a whole number, not true", None),
        ("version: 1\nname: «''\ntasks: {a: {run: x}}", "name: '' is not one line of 1 to 200 characters", None),
        (HEAD + "tasks: «[]", "tasks: must be a mapping, not a list", None),
        (HEAD + "tasks: «{}", "tasks: must not be empty", None),
        (HEAD + "«task: 1\ntasks: {a: {run: x}}", "unknown key 'task'", "Did you mean 'tasks'?"),
        (HEAD + "fail_fast: «yes\ntasks: {a: {run: x}}", "fail_fast: must be true or false, not text 'yes'", None),
        (HEAD + "supersede: «all\ntasks: {a: {run: x}}", "supersede: text 'all' is not one of branch", None),
        (HEAD + "defaults: «[]\ntasks: {a: {run: x}}", "defaults: must be a mapping, not a list", None),
        (HEAD + "defaults: {«needs: a}\ntasks: {a: {run: x}}", "unknown key 'needs'", None),
    ],
)
def test_a_wrong_suite_is_refused_with_its_place(marked, message, hint):
    check(marked, message, hint)


@pytest.mark.parametrize(
    ("task", "message", "hint"),
    [
        ("{run: x, «shard: 3}", "unknown key 'shard'", "Did you mean 'shards'?"),
        ("{run: x, timeouts: {«totl: 1h}}", "unknown key 'totl'", "Did you mean 'total'?"),
        ("{run: x, requires: {«memroy: 1GiB}}", "unknown key 'memroy'", "Did you mean 'memory'?"),
        ("{run: x, «zzz: 1}", "unknown key 'zzz'", "Known here: type, image, pull"),
        ("{run: x, priority: «101}", "priority: must be at most 100, not 101", None),
        ("{run: x, priority: «-1}", "priority: must be at least 0, not -1", None),
        ("{run: x, priority: «1.5}", "priority: must be a whole number, not 1.5", None),
        ("{run: x, priority: «true}", "priority: must be a whole number, not true", None),
        ("{run: x, retries: «'2'}", "retries: must be a whole number, not text '2'", None),
        ("{run: x, retries: «99999999999999999999}", "retries: must be a whole number, not 99999999999999999999", None),
        ("{run: x, retry_on: [failed, «faild]}", "retry_on: text 'faild' is not one of failed, errored, timed_out", "Did you mean 'failed'?"),
        ("{run: x, retry_on: «{}}", "retry_on: must be a list, not a mapping", None),
        ("{args: x, split: «cases}", "split: text 'cases' is not one of case, file, group", "Did you mean 'case'?"),
        ("{run: x, executor: «dokcer}", "executor: text 'dokcer' is not one of process, docker", "Did you mean 'docker'?"),
        ("{run: x, shards: «0}", "shards: must be 'auto' or a number from 1 to 10000, not 0", None),
        ("{run: x, shards: «true}", "shards: must be 'auto' or a number from 1 to 10000, not true", None),
        ("{run: x, timeouts: {total: «30}}", "total: '30' is not a duration", "30s or 30m"),
        ("{run: x, timeouts: {total: «soon}}", "total: 'soon' is not a duration", "as in 30s"),
        ("{run: x, timeouts: {total: «0s}}", "total: a limit of nothing would end every attempt", "`none`"),
        ("{run: x, timeouts: {total: «99d}}", "total: 99d is longer than 30d", None),
        ("{run: x, requires: {memory: «2G}}", "memory: '2G' is not a size", "2GiB"),
        ("{run: x, requires: {disk: «9999TiB}}", "disk: 9999TiB is more than 1024TiB", None),
        ("{run: x, requires: {cpu: «.inf}}", "cpu: must be a finite number", None),
        ("{run: x, requires: {cpu: «two}}", "cpu: must be a number, not text 'two'", None),
        ("{run: x, requires: {capabilities: {«a b: x}}}", "'a b' is not a name of a capability", None),
        ("{run: x, requires: {capabilities: {os: «[linux]}}}", "os: must be a text, not a list", None),
        ("{run: x, env: {«1A: x}}", "'1A' is not a name of an environment variable", None),
        ("{run: x, env: {A: «[x]}}", "A: must be a text, not a list", None),
        ("{run: x, env: {A: «~}}", "A: must be a text, not nothing", "''"),
        ('{run: x, env: {A: «"a\\0b"}}', "A: a text cannot hold the character NUL", None),
        ("{run: x, env: «[]}", "env: must be a mapping, not a list", None),
        ("{run: x, env: {A: b}, secrets: [«A]}", "'A' is in `env` too", None),
        ("{run: x, secrets: [A, «b c]}", "secrets: 'b c' is not a name of an environment variable", None),
        ("{run: x, artifacts: [«/etc/passwd]}", "artifacts: '/etc/passwd' leads out of the workspace", "relative"),
        ("{run: x, artifacts: «a/../../b}", "artifacts: 'a/../../b' leads out of the workspace", None),
        ("{run: x, working_directory: «..}", "working_directory: '..' leads out of the workspace", None),
        ("{command: «make}", "command: must be a list, not text 'make'", None),
        ("{command: «[]}", "command: must not be empty", None),
        ("{args: «'\"x'}", "args: cannot be split as a shell does: No closing quotation", "list"),
        ("{args: [t, «--pdb]}", "args: pytest's --pdb makes no sense on a cluster", "plain pytest"),
        ("{args: «t --pdb}", "args: pytest's --pdb makes no sense on a cluster", None),
        ("{type: «pytst}", NOT_A_KIND, "Did you mean 'pytest'?"),
        ("{run: x, «command: [x]}", "a task has `command` or `run`, not both", None),
        ("{run: x, «args: [x]}", "'args' is not for a command task", None),
        ("{args: x, «reports: r.xml}", "'reports' is not for a pytest task", None),
        ("{run: '${matrix.x}'}", None, None),
    ],
)  # fmt: skip
def test_a_wrong_task_is_refused_with_its_place(task, message, hint):
    if message is None:
        task, message = task.replace("'$", "«'$"), "no matrix axis 'x' here"
    check(f"{HEAD}tasks:\n  a: {task}\n", message, hint)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("{«a: {setup: x}}", "this task does not say what to run"),
        ("{«a: {type: command}}", "a command task needs `command` or `run`"),
        ("{«a: }", "a: must be a mapping, not nothing"),
        ("{«a: [x]}", "a: must be a mapping, not a list"),
        ("{«a: ls}", "a: must be a mapping, not text 'ls'"),
        ("{«a b: {run: x}}", "'a b' is not a name of a task"),
        ("{«-a: {run: x}}", "'-a' is not a name of a task"),
    ],
)
def test_a_wrong_name_or_body_of_a_task_is_refused_at_the_name(tasks, message):
    check(f"{HEAD}tasks: {tasks}", message)


def test_a_wrong_default_is_one_problem_however_many_tasks_take_it():
    check(
        HEAD + "defaults: {priority: «900}\ntasks: {a: {run: x}, b: {run: x}}", "priority: must be at most 100, not 900"
    )
    check(HEAD + "defaults: {type: «pytst}\ntasks: {a: {setup: x}, b: {run: x}}", NOT_A_KIND)  # fmt: skip


def test_all_problems_come_at_once_and_in_the_order_of_the_file():
    problems = problems_of(
        "version: 3\nname: [x]\nsupersede: x\ntasks:\n  a: {run: x, needs: [b, c], priority: -3, priority: 4}\n"
        "  c: {needs: a, args: [--pdb, -f], maxfail: x}\n"
    )

    assert [(problem.line, problem.column) for problem in problems] == [
        (1, 10), (2, 7), (3, 12), (5, 23), (5, 26), (5, 40), (5, 44), (6, 24), (6, 31), (6, 45),
    ]  # fmt: skip


def test_an_error_prints_as_editors_and_terminals_understand_it():
    with pytest.raises(InvalidRequest) as caught:
        load_suite("version: 1\nname: x\ntasks: {a: {run: x, shard: 1}, b: {}}", source="ci/fleetest.yaml")

    assert str(caught.value) == (
        "ci/fleetest.yaml:3:21: unknown key 'shard'\n"
        "    Did you mean 'shards'?\n"
        "ci/fleetest.yaml:3:32: this task does not say what to run\n"
        "    Give it `args` or `type: pytest`, or else `command` or `run`."
    )


def test_of_very_many_problems_the_first_are_shown_and_the_rest_is_counted():
    problems = problems_of(HEAD + "tasks:\n" + "".join(f"  t{number}: {{run: x, nedds: 1}}\n" for number in range(250)))

    assert len(problems) == 101
    assert str(problems[-1]) == "fleetest.yaml: and 150 more problems"


def test_more_tasks_than_allowed_are_refused_once(monkeypatch):
    monkeypatch.setattr(drafts, "MAX_TASKS", 100)
    tasks = "".join(f"  t{number}: {{run: x}}\n" for number in range(102))

    (problem,) = problems_of(HEAD + "tasks:\n" + tasks)

    assert (problem.line, problem.message) == (104, "with this task, there are more than 100 tasks")


def test_large_defaults_times_many_tasks_are_refused_before_they_are_multiplied(monkeypatch):
    monkeypatch.setattr(drafts, "MAX_WEIGHT", 1_000_000)
    env = "".join(f"    A{number}: x\n" for number in range(1000))
    tasks = "".join(f"  t{number}: {{run: x}}\n" for number in range(900))

    (problem,) = problems_of(f"{HEAD}defaults:\n  env:\n{env}tasks:\n{tasks}")

    assert problem.message == "with this task, the suite becomes too large"


YAMLISH = st.text(st.sampled_from("abtx1:-{}[]&*!|>'\"%@`#, \n\t~<.$\\")) | st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["x", "${matrix.a}", "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["x", "a"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ["args", "command", "run", "type", "env", "needs", "matrix", "requires", "timeouts", "setup", "shards", "retry_on"]
)


def loads(text: str) -> bool:
    """Whether a text is a suite; anything else than SuiteInvalid gets through."""
    try:
        load_suite(text, source="x")
    except SuiteInvalid as error:
        return not error.problems
    return True


@given(YAMLISH)
@example("&a [*a]")
@example("? ")
@example("<<: x")
@example("- - - -")
def test_whatever_a_file_holds_only_suite_invalid_is_raised(text):
    assert not loads(text)
    loads(f"{HEAD}tasks: {text}")
    loads(f"{HEAD}tasks:\n  a:\n    run: {text}")


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_whatever_a_task_holds_only_suite_invalid_is_raised(task, defaults):
    loads(json.dumps({"version": 1, "name": "x", "defaults": defaults, "tasks": {"a": task}}))


@pytest.mark.parametrize(
    ("uses", "message", "hint"),
    [
        ("{shop: «alone}", "shop: must be shared, exclusive or a number from 1, not text 'alone'", "share what it has"),
        ("{shop: «0}", "shop: must be shared, exclusive or a number from 1, not 0", None),
        ("{seats: «[1]}", "seats: must be shared, exclusive or a number from 1, not a list", None),
        ("{«a b: shared}", "'a b' is not a name of a resource", "`cluster/`"),
        ("{licences: «2}", "there is no pool 'licences'", "pools: {licences: 5}"),
        ("{seat: «2}", "there is no pool 'seat'", "Did you mean 'seats'?"),
        ("{seats: «6}", "there are 5 of 'seats', and a shard would use 6", None),
        ("{seats: «exclusive}", "'seats' is a pool of 5", "1 to 5"),
        ("«[seats]", "uses: must be a mapping, not a list", None),
    ],
)
def test_wrong_uses_are_refused_with_their_place(uses, message, hint):
    check(f"{HEAD}pools: {{seats: 5}}\ntasks: {{a: {{run: x, uses: {uses}}}}}", message, hint)


@pytest.mark.parametrize(
    ("pools", "message", "hint"),
    [
        ("{seats: «0}", "seats: must be a number from 1 to 1000000, not 0", None),
        ("{seats: «shared}", "seats: must be a number from 1 to 1000000, not text 'shared'", None),
        ("{«cluster/gpu: 1}", "'cluster/gpu' is not a name of a pool", "operator"),
    ],
)
def test_wrong_pools_are_refused_with_their_place(pools, message, hint):
    check(f"{HEAD}pools: {pools}\ntasks: {{a: {{run: x}}}}", message, hint)


@pytest.mark.parametrize(
    ("task", "message", "hint"),
    [
        ("{run: x, «gang: true}", "a gang needs a number of shards", "`shards: 4`"),
        ("{run: x, shards: 501, «gang: true}", "a gang of 501 shards is too large", "500"),
        ("{run: x, shards: 2, gang: «maybe}", "gang: must be a mapping, not text 'maybe'", None),
        (
            "{run: x, shards: 2, gang: {on_lost: «stop}}",
            "on_lost: text 'stop' is not one of abort, continue, end",
            None,
        ),
        ("{args: tests, shards: 2, «gang: true}", "'gang' is not for a pytest task", None),
        (
            "{run: x, shards: 3, gang: true, uses: {seats: «2}}",
            "there are 5 of 'seats', and 3 shards that start together would use 6",
            None,
        ),
    ],
)
def test_a_wrong_gang_is_refused_with_its_place(task, message, hint):
    check(f"{HEAD}pools: {{seats: 5}}\ntasks: {{a: {task}}}", message, hint)
