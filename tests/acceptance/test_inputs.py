"""What one task leaves is there when the next one runs, on another worker."""

from __future__ import annotations

from fleetest.common.states import RunState, TaskState

SUITE = """
    version: 1
    name: inputs
    tasks:
      build:
        run: 'mkdir bin; printf "#!/bin/sh\\necho built" > bin/tool; chmod +x bin/tool; echo $FLEETEST_SHARD_INDEX > part.$FLEETEST_SHARD_INDEX'
        shards: 2
        artifacts: [bin, part.*]
      test:
        run: 'test "$(bin/tool)" = built'
        inputs: {build: bin}
      parts:
        run: 'cat from/part.0 from/part.1 && test ! -e from/bin'
        inputs: {build: {files: [part.*], into: from}}
      lacks:
        run: 'true'
        inputs: {build: '*.log'}
    """


def test_artifacts_of_one_task_are_in_the_workspace_of_another(cluster, project):
    root = project({"fleetest.yaml": SUITE})

    run = cluster.ended(cluster.submit(cwd=root))

    tasks = {task.task_id: task for task in run.tasks}
    assert {name: task.state for name, task in tasks.items()} == {
        "build": TaskState.PASSED,
        "test": TaskState.PASSED,
        "parts": TaskState.PASSED,
        "lacks": TaskState.FAILED,
    }
    assert tasks["lacks"].reason == "build left nothing that matches '*.log': it left bin/tool, part.0, part.1"
    assert run.state is RunState.FAILED
    left = [each["artifact"]["path"] for each in cluster.json("artifacts", run.run_id)]
    assert sorted(path for path in left if path != "bin/tool") == ["part.0", "part.1"]
