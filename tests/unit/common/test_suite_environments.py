import pytest

from fleetest.common.suite import Suite, SuiteInvalid, load_suite
from fleetest.common.tasks import Access, Need, Use

SUITE = """
version: 1
name: shop
environment: dev
environments:
  dev:
    resources: {cpu: 4}
  staging:
    services:
      shop: {url: "https://staging.example.com", credentials: {token: SHOP_STAGING_TOKEN}}
      data-base: {url: "postgres://db.example.com:5432/shop"}
    variables: {LOCALE: de}
tasks:
  unit:
    args: tests
    env: {LOCALE: en, COLOUR: red}
    requires: {cpu: 2}
  lint: {run: ruff check, needs: unit, requires: {cpu: 0}}
"""


def load(text: str = SUITE, environment: str = "", **settings: str) -> Suite:
    return load_suite(
        text,
        source="fleetest.yaml",
        environment=environment,
        settings={key.replace("__", "."): value for key, value in settings.items()},
    )


def problems_of(text: str = SUITE, environment: str = "", **settings: str) -> list[str]:
    with pytest.raises(SuiteInvalid) as caught:
        load(text, environment, **settings)
    return [problem.message for problem in caught.value.problems]


def test_tasks_are_told_where_the_services_of_the_chosen_environment_are():
    suite = load(environment="staging")
    unit = suite.tasks[0]

    assert suite.environment == "staging"
    assert unit.env == {
        "COLOUR": "red",
        "LOCALE": "de",
        "FLEETEST_ENVIRONMENT": "staging",
        "FLEETEST_ENVIRONMENT_TYPE": "staging",
        "SHOP_URL": "https://staging.example.com",
        "SHOP_HOST": "staging.example.com",
        "SHOP_PORT": "443",
        "DATA_BASE_URL": "postgres://db.example.com:5432/shop",
        "DATA_BASE_HOST": "db.example.com",
        "DATA_BASE_PORT": "5432",
    }


def test_credentials_are_references_to_secrets():
    unit = load(environment="staging").tasks[0]

    assert unit.secret_variables == {"SHOP_TOKEN": "SHOP_STAGING_TOKEN"}
    assert "SHOP_TOKEN" not in unit.env


def test_suite_says_which_environment_is_meant_when_nobody_chooses():
    suite = load()

    assert suite.environment == "dev"
    assert suite.tasks[0].env["LOCALE"] == "en"


def test_suite_without_a_choice_is_in_no_environment():
    suite = load(SUITE.replace("environment: dev\n", ""))

    assert (suite.environment, suite.tasks[0].uses) == ("", ())


def test_what_an_environment_allows_is_a_pool_of_which_tasks_take():
    unit, lint = load().tasks

    assert unit.uses == (Use(resource="environment/dev/cpu", access=Access.COUNTED, amount=2000, size=4000),)
    assert (lint.uses, lint.needs) == ((), (Need(task="unit"),))


def test_what_the_suite_says_of_an_environment_can_be_set_otherwise():
    suite = load(
        environment="staging",
        services__shop__url="http://localhost:8000",
        services__mail__url="http://localhost:25",
        variables__LOCALE="1.50",
        resources__cpu="2",
    )
    unit = suite.tasks[0]

    assert (unit.env["SHOP_PORT"], unit.env["MAIL_URL"], unit.env["LOCALE"]) == ("8000", "http://localhost:25", "1.50")
    assert unit.uses[0].size == 2000
    assert unit.secret_variables == {"SHOP_TOKEN": "SHOP_STAGING_TOKEN"}


@pytest.mark.parametrize(
    ("environment", "settings", "problem"),
    [
        ("stagin", {}, "there is no environment 'stagin'"),
        ("staging", {"services__shop__url": "localhost:8000"}, "url: 'localhost:8000' is not the URL of a service"),
        ("staging", {"services__shop__url": "http://me:pw@x"}, "url: a URL in a suite must not hold a password"),
        ("staging", {"services__shop__port": "80"}, "unknown key 'port'"),
        ("staging", {"variables__SHOP_TOKEN": "x"}, "staging: SHOP_TOKEN would be a variable and a secret"),
        ("dev", {"resources__cpu": "1"}, "unit needs more cpu than dev allows"),
        ("dev", {"resources__cpu": "some"}, "cpu: must be a number, not text 'some'"),
    ],
)
def test_what_is_wrong_with_a_choice_is_said(environment: str, settings: dict[str, str], problem: str):
    assert problems_of(SUITE, environment, **settings) == [problem]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{qa: {}}", "qa: key 'type' is missing"),
        ("{qa: {type: test}}", "type: text 'test' is not one of dev, staging, prod"),
        ("{qa: {type: dev, services: {a b: {url: 'http://x'}}}}", "'a b' is not a name here"),
    ],
)
def test_what_is_wrong_with_an_environment_is_said(written: str, problem: str):
    text = f"version: 1\nname: x\nenvironments: {written}\nenvironment: qa\ntasks: {{a: {{run: x}}}}"

    assert problem in problems_of(text)


def test_settings_without_an_environment_are_a_mistake():
    text = "version: 1\nname: x\ntasks: {a: {run: x}}"

    assert problems_of(text, services__shop__url="http://x") == ["'services.shop.url' is set for no environment"]
