"""The memory and the files that trials may take.

An allocation beyond the memory fails, and with it one trial, where the kernel would end the process. Linux only. The
limit is on RLIMIT_DATA (setrlimit(2)), private writable memory, which is what a tensor is made of.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from outdo import runtime

SHARE = 0.9  # of the memory that is available
CGROUP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(most_bytes: int | None) -> Iterator[None]:
    """Within, this process can take so much more memory than it has now; None: as much as there is."""
    if most_bytes is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    limit = data + most_bytes if soft == resource.RLIM_INFINITY else min(soft, data + most_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def allow_files() -> None:
    """As many open files as this process may ever have: each size and view of each backbone is kept in several."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def available() -> int | None:
    """Bytes that could be had now, by the machine and by this process's control group; None where that is unknown or
    where trials do not compute in it."""
    if sys.platform != "linux" or runtime.device().type != "cpu":
        return None
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    found = int(lines["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):  # there is no such group, or it may take what it likes ("max")
        found = min(found, int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text()))
    return int(SHARE * found)
