from __future__ import annotations

from datetime import timedelta

from fleetest.common.suite import Suite, load_suite
from fleetest.common.tasks import (
    Access,
    KeepWhen,
    Need,
    Network,
    OnLost,
    Pull,
    Resources,
    RetryOn,
    RunnerType,
    Split,
    Task,
    Timeouts,
    Use,
    When,
)


def load(text: str) -> Suite:
    return load_suite(text, source="fleetest.yaml")


def tasks_of(tasks: str, defaults: str = "{}") -> dict[str, Task]:
    suite = load(f"version: 1\nname: demo\ndefaults: {defaults}\ntasks: {tasks}\n")
    return {task.name: task for task in suite.tasks}


def test_what_a_suite_does_not_say_is_as_a_task_has_it():
    suite = load("version: 1\nname: demo\ntasks:\n  unit:\n    args: [tests]\n")

    assert suite == Suite(name="demo", tasks=(Task(name="unit", type="pytest", args=("tests",)),))
    assert suite.tasks[0].timeouts.total == timedelta(minutes=30)


def test_every_key_reaches_its_place():
    suite = load(
        """
version: 1
name: demo
project: acme/shop
supersede: branch
fail_fast: true
tasks:
  lint: {type: command, run: ruff check .}
  unit:
    type: pytest
    args: tests -k "not slow"
    image: python:3.12
    pull: always
    network: none
    setup: [pip install -e ., make assets]
    setup_inputs: [pyproject.toml]
    env: {PORT: 8080}
    secrets: [TOKEN]
    python: python3.12
    working_directory: services/api
    executor: docker
    requires: {capabilities: {os: linux}, cpu: 0.5, memory: 2GiB, disk: 10GB}
    priority: 80
    needs: {lint: always}
    timeouts: {queue: 1h, start: 90s, silence: none, total: 1h30m}
    retries: 2
    retry_on: [errored]
    shards: 4
    split: file
    maxfail: 3
    artifacts: ["out/**"]
  site:
    command: [make, -C, docs]
    shards: auto
    reports: [junit.xml]
"""
    )

    lint, unit, site = suite.tasks
    assert (suite.name, suite.project, suite.supersede, suite.fail_fast) == ("demo", "acme/shop", "branch", True)
    assert lint == Task(name="lint", type="command", runner=RunnerType.COMMAND, shell="ruff check .")
    assert unit == Task(
        name="unit",
        type="pytest",
        args=("tests", "-k", "not slow"),
        image="python:3.12",
        pull=Pull.ALWAYS,
        network=Network.NONE,
        setup=("pip install -e .", "make assets"),
        setup_inputs=("pyproject.toml",),
        env={"PORT": "8080"},
        secrets=("TOKEN",),
        python="python3.12",
        working_directory="services/api",
        executor="docker",
        requirements={"os": "linux"},
        resources=Resources(cpu_millis=500, memory_bytes=2 << 30, disk_bytes=10 * 1000**3),
        priority=80,
        needs=(Need(task="lint", when=When.ALWAYS),),
        timeouts=Timeouts(
            queue=timedelta(hours=1), start=timedelta(seconds=90), silence=None, total=timedelta(minutes=90)
        ),
        retries=2,
        retry_on=frozenset({RetryOn.ERRORED}),
        shards=4,
        split=Split.FILE,
        maxfail=3,
        artifacts=("out/**",),
    )
    assert site == Task(
        name="site",
        type="command",
        runner=RunnerType.COMMAND,
        command=("make", "-C", "docs"),
        shards=None,
        reports=("junit.xml",),
    )


def test_the_type_of_a_task_is_told_by_its_keys():
    tasks = tasks_of("{a: {args: []}, b: {run: x}, c: {command: [x]}, d: {type: pytest}, e: {setup: x}}", "{args: t}")

    assert [task.type for task in tasks.values()] == ["pytest", "command", "command", "pytest", "pytest"]


def test_a_task_takes_the_defaults_that_fit_its_type():
    tasks = tasks_of(
        "{unit: {args: [t]}, check: {run: x}, make: {command: [make]}}",
        "{type: pytest, maxfail: 2, split: file, run: y, reports: r.xml, retries: 1}",
    )

    unit, check, make = tasks.values()
    assert (unit.maxfail, unit.split, unit.shell, unit.reports, unit.retries) == (2, Split.FILE, "", (), 1)
    assert (check.type, check.maxfail, check.shell, check.reports) == ("command", 0, "x", ("r.xml",))
    assert (make.command, make.shell) == (("make",), "")


def test_the_type_of_the_defaults_holds_for_tasks_whose_keys_it_has():
    tasks = tasks_of("{a: {args: [e2e]}, b: {}, c: {run: make}, d: {type: pytest}}", "{type: playwright}")

    assert [task.type for task in tasks.values()] == ["playwright", "playwright", "command", "pytest"]


def test_env_requires_and_timeouts_are_merged_with_defaults_and_everything_else_is_replaced():
    defaults = (
        "{env: {A: 1, B: 1}, timeouts: {total: 1h, queue: 5m}, setup: [x, y],"
        " requires: {memory: 1GiB, capabilities: {os: linux, gpu: no}}}"
    )

    task = tasks_of(
        "{a: {run: x, env: {B: 2}, timeouts: {total: 2h}, setup: [z], requires: {capabilities: {gpu: a100}}}}", defaults
    )["a"]

    assert task.env == {"A": "1", "B": "2"}
    assert (task.timeouts.total, task.timeouts.queue) == (timedelta(hours=2), timedelta(minutes=5))
    assert task.requirements == {"os": "linux", "gpu": "a100"}
    assert task.resources.memory_bytes == 1 << 30
    assert task.setup == ("z",)


def test_numbers_and_truth_values_count_as_written_where_a_text_is_due():
    task = tasks_of(
        "{2024: {command: [sleep, 0.50], env: {V: 3.10, D: true, O: 0o7, Y: yes, I: 1_0}, needs: [1]}, 1: {run: x}}"
    )

    assert task["2024"].command == ("sleep", "0.50")
    assert task["2024"].env == {"V": "3.10", "D": "true", "O": "0o7", "Y": "yes", "I": "1_0"}
    assert task["2024"].needs == (Need(task="1"),)


def test_one_value_stands_for_a_list_of_one():
    task = tasks_of("{a: {run: x, artifacts: out, secrets: TOKEN, retry_on: errored, setup_inputs: '*.txt'}}")["a"]

    assert (task.artifacts, task.secrets, task.setup_inputs) == (("out",), ("TOKEN",), ("*.txt",))
    assert task.retry_on == {RetryOn.ERRORED}


def test_setup_of_several_lines_becomes_as_many_shell_lines():
    text = "version: 1\nname: x\ntasks:\n  a:\n    run: x\n    setup: |\n      one \\\n        more\n\n      two\n"

    assert load(text).tasks[0].setup == ("one   more", "two")


def test_arguments_that_are_settings_become_settings():
    tasks = tasks_of("{a: {args: '-xq --lf t'}, b: {args: [t], maxfail: 4}, c: {args: --maxfail=0}}", "{maxfail: 3}")

    assert (tasks["a"].args, tasks["a"].maxfail, tasks["a"].last_failed) == (("-q", "t"), 1, True)
    assert (tasks["b"].maxfail, tasks["b"].last_failed) == (4, False)
    assert tasks["c"].maxfail == 0


def test_anchors_and_merge_keys_work():
    tasks = tasks_of("{a: &a {run: x, retries: 1}, b: {<<: *a, retries: 2}, c: {<<: [*a, {priority: 7}]}}")

    assert [(task.shell, task.retries, task.priority) for task in tasks.values()] == [
        ("x", 1, 50),
        ("x", 2, 50),
        ("x", 1, 7),
    ]


def test_json_is_a_suite_too():
    suite = load('{"version": 1, "name": "demo", "tasks": {"a": {"command": ["x"], "priority": 3}}}')

    assert suite.tasks == (Task(name="a", type="command", runner=RunnerType.COMMAND, command=("x",), priority=3),)


def test_a_chain_of_more_tasks_than_python_calls_deep_is_loaded():
    tasks = "".join(f"  t{number}: {{run: x, needs: [t{number - 1}]}}\n" for number in range(1, 1200))

    assert len(load(f"version: 1\nname: x\ntasks:\n  t0: {{run: x}}\n{tasks}").tasks) == 1200


def test_uses_are_read_with_the_sizes_of_the_pools_and_replace_the_defaults():
    suite = load(
        "version: 1\nname: x\npools: {seats: 5}\ndefaults: {uses: {shop: shared}}\ntasks:\n"
        "  a: {run: x}\n"
        "  b: {run: x, uses: {shop: exclusive, seats: '${matrix.n}', cluster/gpu: 1}, matrix: {n: [2]}}\n"
        "  c: {run: x, uses: {}}\n"
    )

    assert [task.uses for task in suite.tasks] == [
        (Use(resource="shop", access=Access.SHARED),),
        (
            Use(resource="cluster/gpu", access=Access.COUNTED, amount=1),
            Use(resource="seats", access=Access.COUNTED, amount=2, size=5),
            Use(resource="shop", access=Access.EXCLUSIVE),
        ),
        (),
    ]


def test_a_gang_is_a_switch_or_says_what_a_lost_shard_means():
    tasks = tasks_of(
        "{a: {run: x, shards: 2}, b: {run: x, shards: 2, gang: true}, c: {run: x, shards: 2, gang: false},"
        " d: {run: x, shards: 2, gang: {on_lost: continue}}, e: {args: tests}}",
        defaults="{gang: true}",
    )

    assert [task.gang for task in tasks.values()] == [OnLost.ABORT, OnLost.ABORT, None, OnLost.CONTINUE, None]


def test_artifacts_have_a_time_and_an_occasion():
    suite = load_suite(
        "{version: 1, name: s, tasks: {a: {run: x, artifacts: out, artifacts_keep: 45d, artifacts_when: failed}, "
        "b: {run: x}}}",
        source="fleetest.yaml",
    )

    a, b = suite.tasks
    assert (a.artifacts, a.artifacts_keep, a.artifacts_when) == (("out",), timedelta(days=45), KeepWhen.FAILED)
    assert (b.artifacts_keep, b.artifacts_when) == (timedelta(), KeepWhen.ALWAYS)
