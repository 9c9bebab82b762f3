"""Where a workspace came from: asked of Git, and of the CI system around."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fleetest.common.git import run_git

__all__ = ["VersionControl", "version_control"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionControl:
    """Where a workspace came from; each field may be empty."""

    commit: str = ""
    branch: str = ""
    pull_request: str = ""
    dirty: bool = False
    described_version: str = ""


def version_control(
    root: Path, environment: Mapping[str, str], *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> VersionControl:
    """
    What is known of the tree at `root`; what is not known stays empty. Never fails; takes a minute at the most.

    Git knows the commit; a CI system, which checks out a bare commit, knows the branch and the pull request.

    Args:
        root: the workspace's.
        environment: where GitHub Actions and GitLab CI say what they build.
        clock: marks a described version with uncommitted changes.
    """
    known = _from_ci(environment)
    # The tree of `root` in the commit: fails where `root` merely happens to lie inside some repository.
    if run_git(root, "rev-parse", "--verify", "--quiet", "HEAD:./") is None:
        return known
    from fleetest.common.scm_version import described_version  # only where there is a version to describe

    status = run_git(root, "status", "--porcelain=v2", "--branch", "--", ".") or ""
    headers = dict(re.findall(r"^# branch\.(oid|head) (.+)$", status, re.MULTILINE))
    branch = headers.get("head", "")
    return replace(
        known,
        commit=headers.get("oid", known.commit),
        branch=known.branch or ("" if branch == "(detached)" else branch),
        dirty=any(line and not line.startswith("#") for line in status.splitlines()),
        described_version=described_version(root, today=clock().date()),
    )


def _from_ci(environment: Mapping[str, str]) -> VersionControl:
    if environment.get("GITHUB_ACTIONS") == "true":
        return _from_github(environment)
    if environment.get("GITLAB_CI") == "true":
        return _from_gitlab(environment)
    return VersionControl()


def _from_github(environment: Mapping[str, str]) -> VersionControl:
    """Source: docs.github.com, "Variables reference", default environment variables."""
    reference = environment.get("GITHUB_REF", "")
    pull_request = re.fullmatch(r"refs/pull/(\d+)/(merge|head)", reference)
    return VersionControl(
        commit=environment.get("GITHUB_SHA", ""),
        branch=environment.get("GITHUB_HEAD_REF", "")
        or (reference.removeprefix("refs/heads/") if reference.startswith("refs/heads/") else ""),
        pull_request=pull_request[1] if pull_request else "",
    )


def _from_gitlab(environment: Mapping[str, str]) -> VersionControl:
    """Source: docs.gitlab.com, "Predefined CI/CD variables reference"; the branch is absent in a tag's pipeline."""
    return VersionControl(
        commit=environment.get("CI_COMMIT_SHA", ""),
        branch=environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "") or environment.get("CI_COMMIT_BRANCH", ""),
        pull_request=environment.get("CI_MERGE_REQUEST_IID", ""),
    )
