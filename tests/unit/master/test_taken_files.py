"""Which artifacts of others a task takes, and where they go."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fleetest.common.digest import digest_of
from fleetest.common.results import Artifact
from fleetest.common.tasks import Input
from fleetest.master.runs.inputs import InputsMissing, taken_files
from tests.tools.story import Story, command_task, pytest_task


def leave(story: Story, shard_id: str, **files: bytes) -> None:
    """An attempt ends that leaves these files, an underscore for each dot."""
    token = story.start(shard_id)
    artifacts = [
        Artifact(path=name.replace("_", "."), digest=digest_of(content), size_bytes=len(content))
        for name, content in files.items()
    ]
    story.ask(lambda decider: decider.artifacts_saved(shard_id, token, artifacts, []))
    story.end(shard_id)


def taken(story: Story, *inputs: Input) -> dict[str, str]:
    """Digests by path."""
    kept = {
        (f"{shard_id}/{path}", artifact.digest)
        for task in story.status.tasks.values()
        for (shard_id, path), artifact in task.artifacts.items()
    }
    return {file.path: file.digest for file in taken_files(story.status, inputs, kept)}


def login(*files: str, **settings: object) -> Input:
    return Input(task="login", files=files, **settings)  # type: ignore[arg-type]  # forwarded as they are


def test_globs_choose_and_a_directory_takes():
    story = Story(command_task("login"))
    leave(story, "login#0", state_json=b"s", a_png=b"a", b_png=b"b")

    assert taken(story, login()).keys() == {"state.json", "a.png", "b.png"}
    assert taken(story, login("*.png", "state.*", into="from/it")).keys() == {
        "from/it/state.json",
        "from/it/a.png",
        "from/it/b.png",
    }


def test_files_of_all_shards_and_of_several_tasks_come_together():
    story = Story(command_task("login", shards=2), command_task("other"))
    for number in range(2):
        leave(story, f"login#{number}", **{f"part_{number}": b"%d" % number, "same": b"same"})
    leave(story, "other#0", same=b"same", more=b"x")

    assert taken(story, login(), Input(task="other")).keys() == {"part.0", "part.1", "same", "more"}


def test_a_retry_replaces_what_it_leaves_again():
    story = Story(command_task("login", retries=1))
    story.start("login#0")
    token = story.token("login#0")
    first = [Artifact(path=path, digest=digest_of(b"1"), size_bytes=1) for path in ("a", "b")]
    story.ask(lambda decider: decider.artifacts_saved("login#0", token, first, []))
    story.report("login#0", login="failed")
    story.end("login#0")

    leave(story, "login#0", a=b"2")

    assert taken(story, login()) == {"a": digest_of(b"2"), "b": digest_of(b"1")}


@pytest.mark.parametrize(
    ("left", "wanted", "reason"),
    [
        ({}, login("state.json"), "login left nothing that matches 'state.json'"),
        ({}, login(), "login left no artifacts"),
        (
            {f"{name}_png": b"" for name in "abcde"},
            login("*.png", "state.json"),
            "login left nothing that matches 'state.json': it left a.png, b.png, c.png and 2 more",
        ),
    ],
)
def test_what_is_not_there_is_named_with_what_there_is(left, wanted, reason):
    story = Story(command_task("login"))
    leave(story, "login#0", **left)

    with pytest.raises(InputsMissing) as refusal:
        taken(story, wanted)

    assert refusal.value.message == reason


def test_what_is_optional_may_be_missing():
    story = Story(command_task("login"))
    leave(story, "login#0", a=b"a")

    assert taken(story, login("b", "a", optional=True)).keys() == {"a"}


def test_different_files_of_two_commands_at_one_path_are_refused():
    story = Story(command_task("login", shards=2))
    for number in range(2):
        leave(story, f"login#{number}", junit_xml=b"%d" % number)

    with pytest.raises(InputsMissing, match=r"login#0 and login#1 both left junit\.xml, and not the same"):
        taken(story, login())


def test_of_what_shards_of_pytest_left_at_one_path_the_newest_is_taken():
    story = Story(pytest_task("login", shards=2))
    story.plans("login", "a", "b")
    leave(story, "login#1", log=b"1")
    story.clock.advance(timedelta(seconds=1))
    leave(story, "login#0", log=b"1, 2")

    assert taken(story, login()) == {"log": digest_of(b"1, 2")}
