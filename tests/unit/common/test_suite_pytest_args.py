from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.suite.pytest_args import PytestArgs, interpret_pytest_args


@pytest.mark.parametrize(
    ("given_args", "left"),
    [
        ("", ""),
        ("tests -k fast -vv -s", "tests -k fast -vv -s"),
        ("-n 4 tests", "tests"),
        ("-n4 tests", "tests"),
        ("-n auto --dist loadfile --tx=popen tests", "tests"),
        ("--numprocesses=2 --max-worker-restart 3 -d --no-loadscope-reorder tests", "tests"),
        ("-vn 4 tests", "-v tests"),
        ("-k -x tests", "-k -x tests"),
        ("-kx -mnx -rfh -Wn", "-kx -mnx -rfh -Wn"),
        ("-vk x", "-vk x"),
        ("-p no:xdist -o addopts= -c setup.cfg", "-p no:xdist -o addopts= -c setup.cfg"),
        ("--cov --cov-report=xml --reruns 2 -Zx", "--cov --cov-report=xml --reruns 2 -Zx"),
        ("tests -- -x --pdb -n", "tests -- -x --pdb -n"),
        ("- tests", "- tests"),
        ("-k", "-k"),
    ],
)
def test_arguments_for_xdist_are_dropped_and_all_others_passed_on(given_args, left):
    assert interpret_pytest_args(given_args.split()) == PytestArgs(args=tuple(left.split()))


@pytest.mark.parametrize(
    ("given_args", "expected"),
    [
        ("-x t", PytestArgs(args=("t",), maxfail=1)),
        ("--exitfirst", PytestArgs(args=(), maxfail=1)),
        ("-xvs", PytestArgs(args=("-vs",), maxfail=1)),
        ("-vxk a", PytestArgs(args=("-vk", "a"), maxfail=1)),
        ("-xn4", PytestArgs(args=(), maxfail=1)),
        ("--maxfail=3", PytestArgs(args=(), maxfail=3)),
        ("--maxfail 3 t", PytestArgs(args=("t",), maxfail=3)),
        ("-x --maxfail=0", PytestArgs(args=(), maxfail=0)),
        ("--lf", PytestArgs(args=(), last_failed=True)),
        ("--last-failed -x", PytestArgs(args=(), last_failed=True, maxfail=1)),
    ],
)
def test_arguments_that_are_settings_of_the_task_become_settings(given_args, expected):
    assert interpret_pytest_args(given_args.split()) == expected


@pytest.mark.parametrize(
    ("given_args", "index", "message", "hint"),
    [
        ("t --pdb", 1, "pytest's --pdb makes no sense on a cluster", "plain pytest"),
        ("--pdbcls=a:b", 0, "pytest's --pdbcls makes no sense on a cluster", "plain pytest"),
        ("-vf", 0, "pytest's -f makes no sense on a cluster", "plain pytest"),
        ("-h", 0, "pytest's -h makes no sense on a cluster", "runs no tests"),
        ("--co", 0, "pytest's --co makes no sense on a cluster", "runs no tests"),
        ("--sw", 0, "pytest's --sw makes no sense on a cluster", "`--lf`"),
        ("--ff", 0, "pytest's --ff makes no sense on a cluster", "`--lf`"),
        ("--junitxml=a.xml", 0, "pytest's --junitxml makes no sense on a cluster", "fleetest run --junit"),
        ("-q --maxfail=many", 1, "pytest's --maxfail needs a number, not 'many'", "--maxfail=3"),
        ("--maxfail=-1", 0, "pytest's --maxfail needs a number, not '-1'", "--maxfail=3"),
        ("t --maxfail", 1, "pytest's --maxfail needs a value", "VALUE"),
        ("t -n", 1, "pytest's -n needs a value", "VALUE"),
        ("t --dist", 1, "pytest's --dist needs a value", "VALUE"),
    ],
)
def test_arguments_without_a_meaning_on_a_cluster_are_refused(given_args, index, message, hint):
    (fault,) = interpret_pytest_args(given_args.split()).faults

    assert (fault.path, fault.message) == ((index,), message)
    assert hint in str(fault.hint)


@given(st.lists(st.text() | st.sampled_from(["-x", "-n", "-vk", "--dist", "--maxfail", "--", "-xvs", "--lf"])))
def test_interpreting_what_is_left_changes_nothing_more(args):
    once = interpret_pytest_args(args)

    assert interpret_pytest_args(once.args).args == once.args
