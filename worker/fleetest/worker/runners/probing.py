"""Whether a service is ready: one look, and what it saw."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fleetest.common.tasks import Probe
from fleetest.worker.service_address import ServiceAddress, refusal_of

__all__ = ["Run", "look"]

_PATIENCE_SECONDS: Final = 5.0
_SHELL: Final = ("/bin/sh", "-c")

# Asks from within a container, with what images have, whether somebody listens at port $2, other than on the loopback
# interface; then, should there be a $3, what a GET of that path is answered at $1. See proc(5), `/proc/net/tcp`: 0A is
# a port that listens; addresses are numbers in the machine's own order, here that of nearly all machines.
_ASK: Final = r"""
port=$(printf %04X "$2") found=
for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ address _ state _; do
        case $state$address in
            0A*7F:"$port" | 0A00000000000000000000000001000000:"$port") found=${found:-near} ;;
            0A*:"$port") found=far ;;
        esac
    done < "$table"
done
[ "$found" ] || { echo "port $2 takes no connection"; exit 1; }
[ "$found" = far ] || { echo "port $2 takes connections of its own container alone: listen on HOST, $4"; exit 1; }
[ "$3" ] || exit 0
status=
if command -v bash > /dev/null; then
    status=$(bash -c '
        exec 3<> "/dev/tcp/$0/$1" || exit 1
        printf "GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\nUser-Agent: fleetest\r\n\r\n" "$2" "$0" "$1" >&3
        read -r _ status _ <&3 && echo "$status"
        cat <&3 > /dev/null 2>&1' "$1" "$2" "$3" 2>&1)  # who hangs up early is an error in servers' logs
elif command -v curl > /dev/null; then
    status=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' "http://$1:$2$3" 2>&1)
elif command -v wget > /dev/null; then
    status=$(wget -S -O /dev/null "http://$1:$2$3" 2>&1 |
        while read -r protocol status _; do case $protocol in HTTP/*) echo "$status"; break ;; esac; done)
else
    echo "the image has none of bash, curl and wget to ask with; a probe of \`tcp\` or \`command\` needs none"
    exit 1
fi
echo "GET $3 answered ${status:-nothing}"
"""

Run = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]
"""Runs a command beside the service; answers its exit code, and the last line that it wrote."""


async def look(probe: Probe, address: ServiceAddress, run: Run) -> str:
    """Why the service is not ready; empty when it is."""
    port = address.ports[""]
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            if probe.shell:
                return await _run_shell(probe.shell, run)
            if address.inside:
                return await _ask_inside(probe, address, run)
            if probe.http:
                return await asyncio.to_thread(_answer, probe, address.host, port)
            return await refusal_of(address.host, port)
    except TimeoutError:
        return f"there was no answer within {_PATIENCE_SECONDS:g} seconds"


async def _run_shell(text: str, run: Run) -> str:
    code, last = await run((*_SHELL, text))
    return f"its command ended with exit code {code}{': ' if last else ''}{last}" if code else ""


async def _ask_inside(probe: Probe, address: ServiceAddress, run: Run) -> str:
    port = str(address.ports[""])
    code, said = await run((*_SHELL, _ASK, "sh", address.host, port, probe.http, address.listens))
    if code:
        return said or f"the probe ended with exit code {code}"
    if not probe.http or said == f"GET {probe.http} answered {probe.status}":
        return ""
    return f"{said}, not {probe.status}"


def _answer(probe: Probe, host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", probe.http, headers={"Connection": "close", "User-Agent": "fleetest"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"GET {probe.http}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == probe.status else f"GET {probe.http} answered {status}, not {probe.status}"
