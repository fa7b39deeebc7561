"""What a runtime's cells depend on that no file of the project shows: the installed software.

Read from package metadata on disk, nothing is imported, so that asking costs milliseconds; the same
environment gives the same bytes.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from driftline.project import routes
from driftline.runtimes import registry
from driftline.runtimes.base import Software

NOT_FETCHED = "not fetched"
"""Of a file that belongs to an environment and is not there yet."""


def probe(name: str, *, threads: int) -> dict[str, Any]:
    """The environment of one runtime, as plain data.

    Args:
        name: of the runtime.
        threads: threads its cells compute with.

    Returns:
        versions and a digest of the installed files of each distribution, Python, CPU features and
        threads; or `missing` with the install line.
    """
    software = software_of(name)
    python = registry.interpreter(name, software)
    if python is None:
        return {"runtime": name, "missing": f"no {software.venv}", "install": software.install}
    installed = _installed(python)
    versions: dict[str, Any] = {}
    for alternatives in software.distributions:
        match = next((wanted for wanted in alternatives if wanted in installed), None)
        if match is None:
            missing = f"no package {alternatives[0].replace('_', '-')}"
            return {"runtime": name, "missing": missing, "install": software.install}
        versions[match] = _describe(installed[match])
    result = {
        "runtime": name,
        "python": platform.python_version() if software.venv is None else _venv_version(python),
        "distributions": versions,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu(),
        "cpu_features": _cpu_features(),
        "threads": threads,
    }
    first = next(iter(versions.values()))["version"]
    return result | {key: _digest(each, first) for key, each in software.files.items()}


def software_of(name: str) -> Software:
    """What a runtime needs installed, as its class says."""
    return registry.resolve(routes.targets()[name]).software


def _installed(python: Path) -> dict[str, Distribution]:
    """Distributions by normalized name; the first on the path wins, as for imports."""
    paths = sys.path
    if python != Path(sys.executable):
        paths = [
            str(path) for path in sorted(python.parent.parent.glob("lib/python3*/site-packages"))
        ]
    by_name: dict[str, Distribution] = {}
    for distribution in distributions(path=paths):
        folder = Path(str(getattr(distribution, "_path", ""))).name
        name = folder.partition("-")[0].lower().replace(".", "_")
        by_name.setdefault(name, distribution)
    return by_name


def _describe(distribution: Distribution) -> dict[str, str]:
    """Version, and a digest over RECORD: pip lists there every installed file with its sha256."""
    record = distribution.read_text("RECORD") or ""
    return {
        "version": distribution.version,
        "files_sha256": hashlib.sha256(_stable(record).encode()).hexdigest(),
    }


def _stable(record: str) -> str:
    """RECORD without what differs between two installs of one wheel: bytecode, scripts."""
    volatile = (".pyc,", "../", "direct_url.json", "REQUESTED", "INSTALLER", "RECORD,", "uv_cache")
    kept = [line for line in record.splitlines() if not any(mark in line for mark in volatile)]
    return "\n".join(sorted(kept))


def _venv_version(python: Path) -> str:
    config = python.parent.parent / "pyvenv.cfg"
    if config.exists():
        for line in config.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "version":
                return value.strip()
    return "unknown"


def _cpu_features() -> list[str]:
    """CPU flags, which choose kernels in every runtime (Linux; empty elsewhere)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return []
    for line in info.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return sorted(line.partition(":")[2].split())
    return []


@cache
def _cpu() -> str:
    """What the CPU is called: libraries choose kernels by model too. Empty where nobody says."""
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return ""


def _digest(place: str, version: str) -> str:
    """What a file below the interpreter's prefix says; it is fetched by a command of its own."""
    path = Path(sys.prefix, place.format(version=version))
    return path.read_text().strip() if path.exists() else NOT_FETCHED
