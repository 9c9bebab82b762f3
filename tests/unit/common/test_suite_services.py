"""Services in a suite: how they are written, and what is wrong about them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite
from fleetest.common.tasks import Need, Probe, Resources, RunnerType, Service, When

SHOP = "{type: service, run: ./shop, ready: {http: /health}}"


def load(tasks: str):
    return load_suite(f"version: 1\nname: demo\ntasks:\n{tasks}", source="fleetest.yaml").tasks


def test_service_is_a_command_with_a_probe_that_reserves_nothing_by_itself():
    shop, test = load("""
  shop: {type: service, run: ./shop, port: 8080, grace: 1s, ready: {http: /up, status: 204, timeout: 5s}}
  test: {args: tests, needs: {shop: ready}}
""")

    assert (shop.runner, shop.shell, shop.resources) == (RunnerType.SERVICE, "./shop", Resources())
    probe = Probe(http="/up", status=204, timeout=timedelta(seconds=5))
    assert shop.service == Service(ready=probe, port=8080, grace=timedelta(seconds=1))
    assert test.needs == (Need(task="shop", when=When.READY),)


def test_service_without_a_probe_is_ready_when_its_port_takes_a_connection():
    shop, _ = load("  shop: {type: service, command: [./shop]}\n  test: {run: x, needs: {shop: ready}}\n")

    assert shop.service == Service(ready=Probe(tcp=True))


def test_service_has_more_ports_by_name_and_publishes_those_that_it_names():
    one, several, _ = load("""
  one: {type: service, run: x, publish: 8080}
  several: {type: service, run: x, port: 80, ports: {metrics: auto}, publish: {port: auto, metrics: 9100}}
  test: {run: x, needs: {one: ready, several: ready}}
""")

    assert one.service == Service(ready=Probe(tcp=True), publish={"": 8080})
    ports = Service(ready=Probe(tcp=True), port=80, ports={"metrics": 0}, publish={"": 0, "metrics": 9100})
    assert several.service == ports
    assert ports.published


def test_services_that_are_published_may_start_on_two_workers_unless_a_task_is_shut_in():
    published = "{type: service, run: x, publish: auto}"
    suite = f"  a: {published}\n  b: {published}\n  t: {{run: x, needs: {{a: ready, b: ready}}"

    assert len(load(suite + "}\n")) == 3
    with pytest.raises(SuiteInvalid, match="could start on two workers"):
        load(suite + ", network: none}\n")


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        (f"  shop: {SHOP}\n  t: {{run: x, needs: [shop]}}", "'t' needs 'shop' passed, a service, which ends only"),
        ("  a: {run: x}\n  t: {run: x, needs: {a: ready}}", "'t' needs 'a' ready, which is no service"),
        (f"  shop: {SHOP}\n  t: {{run: x}}", "no task needs the service 'shop'"),
        (f"  a: {SHOP}\n  b: {SHOP}\n  t: {{run: x, needs: {{a: ready, b: ready}}}}", "could start on two workers"),
        (
            f"  a-b: {SHOP}\n  a.b: {{type: service, run: x, needs: {{a-b: ready}}}}\n  t: {{run: x, needs: {{a.b: ready}}}}",
            "would tell their addresses by the same variables",
        ),
        (
            """
  s: {type: service, run: x, requires: {capabilities: {os: a}}}
  t: {run: x, needs: {s: ready}, requires: {capabilities: {os: b}}}""",
            "one requires os=b and the other a",
        ),
        ("  s: {type: service, run: x, ready: {http: /, tcp: true}}", "needs exactly one of http, tcp and command"),
        ("  s: {type: service, run: x, port: 99999}", "must be 'auto' or a number from 1 to 65535"),
        ("  s: {type: service, run: x, ports: {port: auto}}", "'port' is no name for one more port"),
        ("  s: {type: service, run: x, publish: {metrics: auto}}", "publish: it has no port 'metrics'"),
        ("  s: {type: service, run: x, port: 80, ports: {b: 80}}", "two of its ports have the same number"),
        (
            f"  a: {{type: service, run: x, ports: {{b: auto}}}}\n  a-b: {SHOP}\n  t: {{run: x, needs: {{a: ready, a-b: ready}}}}",
            "would tell their addresses by the same variables",
        ),
        (f"  LocalHost: {SHOP}\n  t: {{run: x, needs: {{LocalHost: ready}}}}", "cannot be called 'LocalHost'"),
    ],
)
def test_what_is_wrong_is_named(tasks, problem):
    with pytest.raises(SuiteInvalid) as refusal:
        load(tasks + "\n")

    assert problem in str(refusal.value)
