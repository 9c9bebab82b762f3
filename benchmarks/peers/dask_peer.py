"""dask.distributed: two worker processes of one thread each; `pure=False`, since equal calls are to be made again."""

from __future__ import annotations

from collections.abc import Sequence

from distributed import Client, LocalCluster
from serving import serve


def noop(number: int) -> int:
    """What the tasks do."""
    return number


def _main() -> None:
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, Client(cluster) as client:

        def many(count: int) -> Sequence[int]:
            results: Sequence[int] = client.gather(client.map(noop, range(count), pure=False))
            return results

        def one(number: int) -> int:
            answer: int = client.submit(noop, number, pure=False).result()
            return answer

        serve(many, one)


if __name__ == "__main__":
    _main()
