"""One run of the command, from its arguments to its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleetest.client.cli.settings import ClientSettings
from fleetest.common.settings import read_settings

__all__ = ["Invocation", "invoke"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What every command is given beside its own arguments."""

    settings: ClientSettings
    environment: Mapping[str, str]


def invoke(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; answers its exit code. Errors end here, each as a line of what and a line of what to do."""
    from fleetest.client.cli import faults

    settings = ClientSettings()
    try:
        settings = read_settings(ClientSettings, environment)
        from fleetest.client.cli.root import cli

        invocation = Invocation(settings=settings, environment=environment)
        code = cli.main(list(arguments), prog_name="fleetest", standalone_mode=False, obj=invocation)
    except Exception as error:  # noqa: BLE001 - the boundary: nothing may pass it as a traceback
        return faults.report(error, settings)
    except KeyboardInterrupt as error:
        return faults.report(error, settings)
    return code if isinstance(code, int) else 0
