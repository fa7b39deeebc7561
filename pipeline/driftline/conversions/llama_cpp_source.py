"""The converter of the very llama.cpp that will run the artifact.

llama-cpp-python's sdist holds the whole llama.cpp it was built from, converter and gguf-py with it.
`fetch` takes exactly those files out of the sdist of the installed version, once, into the Python
environment they belong to.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from driftline.errors import ToolError
from driftline.files import new_directory

DISTRIBUTION = "llama-cpp-python"
WANTED = ("convert_hf_to_gguf.py", "conversion", "gguf-py/gguf", "LICENSE")
DIGEST_FILE = "SHA256"
"""Holds one sha256 over the extracted files, so that the probe need not read them all."""
REMEDY = "driftline fetch-converter"


def location() -> Path:
    """Where the converter of the installed llama-cpp-python is or would be.

    Raises:
        ToolError: llama-cpp-python is not installed.
    """
    try:
        installed = version(DISTRIBUTION)
    except PackageNotFoundError:
        raise ToolError(
            f"{DISTRIBUTION} is not installed", remedy="pip install 'driftline[llamacpp]'"
        ) from None
    return Path(sys.prefix) / "share" / "driftline" / f"llama.cpp-{installed}"


def require() -> Path:
    """The converter's folder.

    Raises:
        ToolError: it has not been fetched for the installed version.
    """
    folder = location()
    if not (folder / DIGEST_FILE).exists():
        raise ToolError(
            f"the GGUF converter of {DISTRIBUTION} {version(DISTRIBUTION)} is not here",
            remedy=f"{REMEDY}   (takes it from that version's source package)",
        )
    return folder


def fetch() -> Path:
    """Download the installed version's sdist with pip and extract the converter; idempotent.

    Raises:
        ToolError: pip could not get it, or it holds no converter.
    """
    destination = location()
    if (destination / DIGEST_FILE).exists():
        return destination
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder]
        command += [f"{DISTRIBUTION}=={version(DISTRIBUTION)}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        sdists = sorted(Path(folder).glob("*.tar.gz"))
        if done.returncode or len(sdists) != 1:
            raise ToolError(
                f"pip could not download the source of {DISTRIBUTION}:\n{done.stderr[-800:]}",
                remedy=f"check the network, then {REMEDY}",
            )
        with new_directory(destination) as fresh:
            _extract(sdists[0], fresh)
    return destination


def _extract(sdist: Path, destination: Path) -> None:
    total = hashlib.sha256()
    with tarfile.open(sdist) as archive:
        for member in sorted(archive.getmembers(), key=lambda entry: entry.name):
            inside = _wanted(member.name)
            file = archive.extractfile(member) if inside and member.isfile() else None
            if inside is None or file is None:
                continue
            data = file.read()
            target = destination / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            total.update(f"{hashlib.sha256(data).hexdigest()}  {inside}\n".encode())
    if not (destination / WANTED[0]).exists():
        raise ToolError(f"{sdist.name} holds no {WANTED[0]}", remedy="report this version to us")
    (destination / DIGEST_FILE).write_text(total.hexdigest() + "\n")


def _wanted(name: str) -> str | None:
    """Path below llama.cpp of a wanted archive member, None for any other."""
    parts = PurePosixPath(name).parts
    if parts[1:3] != ("vendor", "llama.cpp"):
        return None
    inside = "/".join(parts[3:])
    wanted = any(inside == path or inside.startswith(path + "/") for path in WANTED)
    return inside if wanted and ".." not in parts else None
