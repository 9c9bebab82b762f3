"""A generator of load that makes none: it speaks as one does, and then does what its scenario, a line of Python, says."""

from __future__ import annotations

from typing import Final

__all__ = ["READY", "SAMPLE", "SPEAKER"]

# As the module `gevent` of a workspace it takes the place of all that the real one would import next.
SPEAKER: Final = """
    import json, os, socket, sys
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["FLEETEST_LOAD_SOCKET"])
    def say(**message):
        line.sendall(json.dumps(message).encode() + b"\\n")
    say(event="hello", protocol=1, token=os.environ["FLEETEST_LOAD_TOKEN"])
    exec(os.environ["FLEETEST_LOAD_SCENARIO"])
    """
SAMPLE: Final = (
    "dict(event='sample', second=%d, length_us=1000000, users=1, arrivals=1, lag_us=0, last=%s, requests=[])"
)
READY: Final = "say(event='ready'); line.recv(99); say(**" + SAMPLE % (0, False) + "); "
