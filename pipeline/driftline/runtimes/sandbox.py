"""What a worker process may do: no network, no secrets, bounded memory, gone with its parent.

Best effort by platform: everything is applied on Linux; elsewhere only the environment is cleaned.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

PASSED_ON = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""The only variables a worker inherits: no token, no proxy, no credential is among them."""

PACKAGE = Path(__file__).resolve().parents[1]

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def environment(
    *, threads: int, cache: Path, temporary: Path, code: Path, extra: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a worker: fixed locale, time zone, hash seed and thread counts.

    `cache` is where runtimes may keep compiled kernels between runs, `temporary` what is thrown
    away with the process, `code` the folder of `own_code`, `extra` the runtime's own.
    """
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        **kept,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": str(temporary),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(code),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "XDG_CACHE_HOME": str(cache),
        **extra,
    }


def own_code(temporary: Path, module: str) -> Path:
    """A folder below `temporary` that has this package and nothing else, for PYTHONPATH.

    Beside it only what `module`, a runtime's, belongs to: a package that brings one.

    A runtime with an environment of its own must not see the packages of this one, which lie beside
    an installed driftline.
    """
    folder = temporary / "code"
    folder.mkdir()
    (folder / PACKAGE.name).symlink_to(PACKAGE, target_is_directory=True)
    top = module.partition(".")[0]
    if top != PACKAGE.name:
        spec = find_spec(top)
        if spec is not None and spec.origin is not None:
            lies_in = spec.submodule_search_locations
            place = Path(lies_in[0]) if lies_in else Path(spec.origin)
            (folder / place.name).symlink_to(place.resolve(), target_is_directory=bool(lies_in))
    return folder


def confine(memory_gib: float) -> Callable[[], None] | None:
    """What to run in the child between fork and exec; None where the platform has nothing to set.

    The memory limit is on data (`RLIMIT_DATA`: heap and private mappings), not on address space,
    because runtimes map far more than they use.
    """
    if sys.platform != "linux":
        return None
    import resource

    libc = ctypes.CDLL(None, use_errno=True)
    limit = int(memory_gib * 2**30)
    uid, gid = os.getuid(), os.getgid()

    def apply() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _leave_network(libc, uid, gid)

    return apply


def _leave_network(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Move into a network namespace of its own, where only loopback is; no harm if not allowed."""
    if libc.unshare(_CLONE_NEWNET) == 0:
        _raise_loopback()
    elif libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        _raise_loopback()


def _raise_loopback() -> None:
    """`ip link set lo up`: runtimes that talk to themselves over TCP need it."""
    import fcntl
    import socket
    import struct

    siocsifflags, iff_up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh", b"lo", iff_up))
