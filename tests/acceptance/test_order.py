"""Who comes first when there is one slot: priority, then a fair share for every project, then age."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import start_cluster


@pytest.fixture(scope="module")
def one_slot(tmp_path_factory):
    running = start_cluster(tmp_path_factory.mktemp("cluster"), "--workers", "1", "--slots", "1")
    yield running
    assert running.fleetest("down").returncode == 0


@pytest.fixture
def client(one_slot):
    with one_slot.client() as client:
        yield client


@pytest.fixture
def queued(one_slot, client, tmp_path, until):
    """
    Submits runs of one task each while the slot is held, as `(project, name, priority)`; then lets it go, and answers
    the names in the order in which they ran.
    """
    gate, held, tally = tmp_path / "gate", tmp_path / "held", tmp_path / "tally"

    def suite(command, priority=50):
        return f"version: 1\nname: s\ntasks: {{t: {{run: '{command}', priority: {priority}}}}}"

    def run(*wanted):
        holder = client.submit(suite(f"touch {held}; until test -e {gate}; do sleep 0.02; done"), project="holder")
        until(held.exists, what="the slot is held")
        runs = [
            client.submit(suite(f"echo {name} >> {tally}", priority), project=project).run_id
            for project, name, priority in wanted
        ]
        gate.touch()
        for run_id in [holder.run_id, *runs]:
            assert one_slot.ended(run_id).state == "passed"
        return tally.read_text().split()

    return run


def test_higher_priority_runs_first_and_equals_in_order_of_age(queued):
    ran = queued(("p", "low", 10), ("p", "high", 90), ("p", "middle", 50), ("p", "later-high", 90))

    assert ran == ["high", "later-high", "middle", "low"]


def test_projects_take_turns(queued):
    ran = queued(*[("many", f"many{number}", 50) for number in range(4)], ("few", "few0", 50), ("few", "few1", 50))

    assert [name[:-1] for name in ran[:4]] in (["many", "few"] * 2, ["few", "many"] * 2)
    assert ran[4:] == ["many2", "many3"]


def test_priority_comes_before_fairness(queued):
    ran = queued(("one", "one0", 60), ("one", "one1", 60), ("two", "two0", 50))

    assert ran == ["one0", "one1", "two0"]
