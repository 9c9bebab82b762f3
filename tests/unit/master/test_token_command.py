"""`fleetest token` against a real master."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fleetest.client.cli.invocation import invoke
from fleetest.common.settings import Secret
from fleetest.master.server import Master
from fleetest.master.settings import MasterSettings
from tests.support.shared_redis import SharedRedis


@pytest.fixture
async def master(tmp_path: Path, embedded_redis: SharedRedis) -> AsyncIterator[Master]:
    settings = MasterSettings(
        address="127.0.0.1:0",
        data_directory=tmp_path / "data",
        redis_url=embedded_redis.url,
        client_token=Secret("client"),
        join_token=Secret("join"),
    )
    async with Master(settings) as master:
        yield master


@pytest.fixture
def fleetest(master, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "200")

    async def run(*arguments: str, token: str = "client") -> tuple[int, str, str]:
        environment = {
            "FLEETEST_MASTER": f"127.0.0.1:{master.port}",
            "FLEETEST_TOKEN": token,
            "FLEETEST_DATA_DIR": str(tmp_path / "user"),
        }
        capfd.readouterr()
        with capture_logs():  # the master's, in this process
            code = await asyncio.to_thread(invoke, arguments, environment)
        return code, *capfd.readouterr()

    return run


async def test_token_is_printed_once_used_listed_and_revoked(fleetest):
    code, text, said = await fleetest(
        "token", "create", "client", "-d", "nightly", "--project", "shop", "--expires", "30d"
    )
    token = text.strip()
    token_id = token.split("_")[2]

    assert (code, text) == (0, f"{token}\n")
    assert re.fullmatch(r"flt_client_[0-9a-f]{12}_[0-9a-f]{64}", token)
    assert f"client token {token_id}, good until 20" in said
    assert (await fleetest("ls", token=token))[0] == 0
    _, listed, _ = await fleetest("token", "ls")
    assert re.search(rf"{token_id} +client +write shop +nightly +\d+s ago +in 29d", listed)
    assert token not in listed

    code, _, said = await fleetest("token", "revoke", token)

    assert (code, said.splitlines()[-1]) == (0, f"{token_id} is revoked")
    code, _, said = await fleetest("ls", token=token)
    assert code == 2
    assert f"fleetest: the client token {token_id} (nightly) was revoked" in said
    assert token not in said
    assert "no tokens" in (await fleetest("token", "ls"))[2]
    assert re.search(rf"{token_id}.* revoked \d+s ago", (await fleetest("token", "ls", "--all"))[1])


async def test_json_has_the_text_when_created_and_never_again(fleetest):
    _, created, _ = await fleetest(
        "token",
        "create",
        "join",
        "--require-label",
        "pool=ci",
        "--worker-prefix",
        "ci-",
        "--max-workers",
        "3",
        "-o",
        "json",
    )
    _, listed, _ = await fleetest("token", "ls", "-o", "json")

    token = json.loads(created)
    text = token.pop("text")
    assert json.loads(listed) == [token]
    assert text.startswith(f"flt_join_{token['token_id']}_")
    assert token["required_labels"] == {"pool": "ci"}
    assert (token["worker_id_prefix"], token["most_workers"], token["expires_at"]) == ("ci-", 3, None)
    assert "ci-*, pool=ci, 0 of 3 joined" in (await fleetest("token", "ls"))[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "client", "--worker-prefix", "x"), "--worker-prefix has no meaning for a client token"),
        (("create", "join", "--project", "x"), "--project has no meaning for a join token"),
        (("create", "join", "--require-label", "x"), "--require-label: 'x' is not of the form key=value"),
        (("create", "client", "--expires", "soon"), "'soon' is not a duration"),
        (("create", "client", "--access", "admin", "--project", "x"), "cannot be limited to a project"),
        (("create", "root"), "'root' is not one of"),
        (("revoke", "nonesuch"), "there is no token 'nonesuch'"),
    ],
)
async def test_what_cannot_be_is_said(fleetest, arguments, message):
    code, out, said = await fleetest("token", *arguments)

    assert (code, out) == (2, "")
    assert message in said


async def test_only_administrators_manage_tokens(fleetest):
    _, text, _ = await fleetest("token", "create", "client")

    code, _, said = await fleetest("token", "ls", token=text.strip())

    assert code == 2
    assert "may only write; this call needs admin" in said
