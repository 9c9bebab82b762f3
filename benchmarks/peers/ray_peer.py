"""Ray: a local node with two CPUs, which makes two worker processes."""

from __future__ import annotations

from collections.abc import Sequence

import ray
from serving import serve


def _noop(number: int) -> int:
    return number


def _main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    noop = ray.remote(_noop)

    def many(count: int) -> Sequence[int]:
        results: Sequence[int] = ray.get([noop.remote(number) for number in range(count)])
        return results

    def one(number: int) -> int:
        answer: int = ray.get(noop.remote(number))
        return answer

    try:
        serve(many, one)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    _main()
