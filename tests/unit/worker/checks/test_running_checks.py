"""Files of checks, run by pytest against a real server."""

from __future__ import annotations

import ssl

import pytest

from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.shop import TOKEN, open_shop

pytest_plugins = ["pytester"]


def test_steps_hand_on_what_they_capture(run, shop):
    ran = run("""
        variables:
          title: Emma
          pages: 474
        steps:
          - name: add a book
            post: /books
            json: {title: "${title}", pages: "${pages}", about: "${title} has ${pages} pages"}
            expect:
              status: 201
              headers: {location: {matches: ^/books/}}
              json: {$.pages: 474, $.about: Emma has 474 pages}
            capture:
              id: $.id
              place: {header: location}
              number: {regex: '"id": "(\\d+)"'}
          - name: find it
            get: ${place}
            expect:
              json: {$.id: "${number}", "$.title": {contains: mm, length: 4, type: string}}
          - name: in the list
            get: /books
            query: {page: 1}
            expect:
              latency: 20s
              json:
                $.total: {greater_than: 1, at_most: 2}
                $.items[*].title: [Dune, Emma]
                "$.items[?@.id == '${id}'].pages": [474]
                $.nothing: {exists: false}
    """)

    assert ran.outcomes == dict.fromkeys(["add a book", "find it", "in the list"], "passed")
    assert shop.asked == ["POST /books", "GET /books/2", "GET /books?page=1"]
    assert [each["name"] for each in ran.reports["find it"].fleetest_assertions] == [
        "status", "$.id", "$.title contains", "$.title length", "$.title type",
    ]  # fmt: skip


def test_step_that_runs_alone_has_those_before_it_run_first_and_reports_none_of_them(run, shop):
    ran = run(
        """
        steps:
          - {name: add, post: /books, json: {title: Emma}, capture: {id: $.id}}
          - {name: show, get: "/books/${id}"}
          - {name: list, get: /books}
        """,
        "shop.rest.yaml::show",
    )

    assert ran.outcomes == {"show": "passed"}
    assert shop.asked == ["POST /books", "GET /books/2"]


def test_failure_shows_all_assertions_that_failed_the_request_the_response_and_a_diff(run):
    ran = run("""
        steps:
          - name: list
            get: /books
            headers: {x-colour: red}
            expect:
              status: [201, 404]
              headers: {content-type: text/html}
              json:
                $.items: [{id: "1", title: Emma, pages: 412}]
                $.total: 1
              schema: {required: [total, next], properties: {total: {type: string}}}
    """)

    assert set(ran.failed("list")) == {"status", "header content-type", "$.items", "schema"}
    assert ran.failed("list")["status"] == "expected 201 or 404, found 200 OK"
    text = ran.text("list")
    for line in ('-    "title": "Emma",', '+    "title": "Dune",', "x-colour: red", '  "total": 1', "HTTP/1.1 200 OK"):
        assert line in text
    assert "'next' is a required property" in text
    assert "$.total: 1 is not of type 'string'" in text
    assert ran.reports["list"].longrepr.reprcrash.message == "status: expected 201 or 404, found 200 OK (and 3 more)"


def test_secrets_are_never_shown(run, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "open sesame")
    ran = run("""
        secrets: [pin]
        variables: {pin: "471142"}
        steps:
          - name: echo
            post: /echo
            query: {api_key: qu3ry}
            headers: {x-api-key: he4der, cookie: c=00kie1}
            auth: {basic: {username: ann, password: "${env.SHOP_PASSWORD}"}}
            json: {pin: "${pin}", password: "${env.SHOP_PASSWORD}"}
            expect: {status: 500}
    """)

    text = ran.text("echo")
    assert "authorization: ***" in text
    for secret in ("open sesame", "471142", "he4der", "00kie1", "YW5uOm9wZW4gc2VzYW1l"):
        assert secret not in text.partition("--- response")[0], secret
    assert "471142" not in text
    assert "open sesame" not in text


def test_every_way_to_say_who_asks(run, shop):
    ran = run(
        """
        auth: {bearer: "the-t0ken"}
        steps:
          - {name: bearer, get: /echo, expect: {json: {$.headers.authorization: Bearer the-t0ken}}}
          - {name: none, get: /echo, auth: none, expect: {json: {$.headers.authorization: {exists: false}}}}
          - {name: basic, get: /echo, auth: {basic: {username: a, password: b}}, expect: {json: {$.headers.authorization: Basic YTpi}}}
          - {name: header, get: /echo, auth: {api_key: {header: X-Key, value: k}}, expect: {json: {$.headers.x-key: k}}}
          - {name: query, get: "/echo?a=1", auth: {api_key: {query: key, value: k}}, expect: {json: {$.query: {equals: {a: ["1"], key: [k]}}}}}
          - name: oauth2
            get: /members
            auth: &client {oauth2: {token_url: /token, client_id: me, client_secret: "s3cret"}}
          - {name: again, get: /members, auth: *client}
          - {name: refused, get: /members, auth: {oauth2: {token_url: /token, client_id: me, client_secret: x, credentials: body}}}
    """.replace("$.headers.x-key", "\"$.headers['x-key']\"")
    )

    assert {name for name, outcome in ran.outcomes.items() if outcome != "passed"} == {"refused"}
    assert shop.asked.count("POST /token") == 2
    assert "it answered with 400 invalid_client who are you?" in ran.text("refused")
    assert TOKEN not in ran.text("refused")


def test_every_kind_of_body(run, pytester):
    pytester.path.joinpath("cover.txt").write_text("a picture")
    ran = run(
        """
        steps:
          - name: form
            post: /echo
            form: {a: 1, b: [x, "y z"]}
            expect: {json: {$.body: a=1&b=x&b=y+z}}
          - name: multipart
            post: /echo
            multipart: {title: Dune, cover: {file: cover.txt, content_type: text/plain}}
            expect:
              json: {$.body: {contains: 'filename="cover.txt"', matches: "a picture"}}
          - {name: text, put: /echo, body: "${${x}", expect: {json: {$.body: "$${${x}"}}}
          - {name: file, request: {method: PATCH, url: /echo}, body_file: cover.txt, expect: {json: {$.body: a picture, $.method: PATCH}}}
          - {name: null, post: /echo, json: null, expect: {json: {$.body: "null"}}}
    """.replace("name: null", 'name: "null"')
        .replace("${${x}", "$${x}")
        .replace('"$$${x}"', '"$${x}"')
    )

    assert ran.outcomes == dict.fromkeys(["form", "multipart", "text", "file", "null"], "passed"), ran.text("text")


def test_polling_ends_when_it_is_answered_as_expected_or_time_is_over(run, shop):
    ran = run("""
        steps:
          - name: done
            get: /jobs/1
            poll: {interval: 10ms, timeout: 20s}
            expect: {json: {$.state: done}}
          - name: never
            get: /jobs/2
            poll: {interval: 10ms, timeout: 15ms, until: {json: {$.state: cancelled}}}
    """)

    assert ran.outcomes == {"done": "passed", "never": "failed"}
    assert shop.jobs["1"] == 3
    assert set(ran.failed("never")) == {"poll", "$.state"}


def test_redirects_are_followed_when_asked_for(run):
    ran = run("""
        steps:
          - {name: stays, get: /redirect/once, expect: {status: 302, headers: {location: /books}}}
          - {name: follows, get: /redirect/once, follow_redirects: true, expect: {json: {$.total: 1}}}
          - {name: in circles, get: /redirect, follow_redirects: true}
    """)

    assert ran.outcomes == {"stays": "passed", "follows": "passed", "in circles": "failed"}
    assert "redirects without end" in ran.text("in circles")


def test_bad_responses_fail_their_step_and_no_more(run):
    ran = run("""
        steps:
          - {name: no JSON, get: /text, expect: {json: {$.a: 1}, schema: {type: object}}}
          - {name: no UTF-8, get: /latin, expect: {json: {$: 1}, text: {contains: "{"}}}
          - {name: huge, get: /bomb}
          - {name: no gzip, get: /garbage}
          - {name: slow, get: /slow, timeout: 50ms}
          - {name: hung up, get: /hang-up}
          - {name: captures nothing, get: /books, capture: {a: $.nowhere, b: {header: nothing}, c: {regex: q}}}
          - {name: needs it, get: "/books/${a}"}
          - {name: fine, get: /text, expect: {text: {contains: 4711}}}
    """)

    expected = {
        "no JSON": "the body is not JSON: Expecting value in line 1, column 1",
        "no UTF-8": "the body is not JSON: byte 1 is not UTF-8",
        "huge": "the response is larger than 32 MiB",
        "no gzip": "the response cannot be decompressed",
        "slow": "no complete response within 0.05s",
        "hung up": "did not answer as HTTP asks",
        "captures nothing": "capture a: there is nothing at $.nowhere",
        "needs it": "there is no value for ${a}, which step 'captures nothing' did not capture",
    }
    assert {name for name, outcome in ran.outcomes.items() if outcome == "passed"} == {"fine"}
    for name, message in expected.items():
        assert message in ran.text(name), ran.text(name)


def test_server_that_is_not_there_is_named(run):
    ran = run("steps: [{name: list, get: /books}]", base_url=f"http://127.0.0.1:{free_port()}")

    assert "no connection to http://127.0.0.1:" in ran.text("list")
    assert "refused" in ran.text("list")


def test_certificates_are_checked_against_what_the_file_trusts(run, pytester):
    authority = Authority(pytester.path)
    pair = authority.issue()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    step = "steps: [{name: list, get: /books}]"

    with open_shop(context) as shop:
        outcomes = [run(f"{verify}\n{step}", base_url=shop.url) for verify in ("", "verify: ca.pem", "verify: false")]

    assert [ran.outcomes["list"] for ran in outcomes] == ["failed", "passed", "passed"]
    assert "certificate" in outcomes[0].text("list")
    assert "`verify`" in outcomes[0].text("list")


def test_file_of_any_name_is_run_when_it_is_asked_for(run, pytester):
    text = "variables: {n: 1}\nsteps: [{name: list, get: /books, expect: {json: {$.total: '${n}'}}}]"

    ran = run(text, "--checks-files=*.checks.yml", "--checks-variable=n=1", name="shop.checks.yml")
    none = run(text, name="other.yml")

    assert ran.outcomes == {"list": "passed"}
    assert none.outcomes == {}


def test_glob_that_matches_nothing_is_an_error(pytester):
    result = pytester.runpytest_inprocess(
        "-p", "no:asyncio", "-p", "fleetest.worker.checks.plugin", "--checks-files=nothing/*.yaml"
    )

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no file matches 'nothing/[*].yaml'*"])


def test_file_that_cannot_be_used_says_everything_that_is_wrong(run):
    ran = run("""
        steps:
          - {name: list, gett: /books}
          - {name: show, get: "/books/${id}"}
    """)

    assert "shop.rest.yaml:3:" in ran.collection
    assert "unknown key 'gett'" in ran.collection
    assert "there is no value for ${id}" in ran.collection
    assert ran.collection.splitlines()[-1].startswith("2 problems, the first: line 3") or "3 problems" in ran.collection
