"""`llama-perplexity` of the very llama.cpp that llama-cpp-python was built from.

    python -m benchmarks.llama_perplexity_build [jobs]   # prints the path of the program

It is the reference that driftline's statistics are checked against. The sdist of the installed
llama-cpp-python holds llama.cpp whole, `tools/perplexity` and `common` included, so nothing else is
fetched. `jobs` is how many files compile at once (1 unless told).

What could change a number is left at its default, as in llama-cpp-python's own build: GGML_NATIVE
(on: `-march=native`), GGML_OPENMP, GGML_LLAMAFILE, GGML_CPU_REPACK, shared libraries, Release. A
llama-cpp-python compiled with CMAKE_ARGS of its own is another matter: compare the line of
`system_info` in the program's output with `llama_cpp.llama_print_system_info()`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from driftline.conversions.llama_cpp_source import DISTRIBUTION
from driftline.errors import ToolError
from driftline.files import new_directory

FOLDER = Path(".driftline/llama-perplexity")
TARGET = "llama-perplexity"
REMEDY = "python -m benchmarks.llama_perplexity_build"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_METAL": "OFF",  # CPU only; every other backend is off unless asked for
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # or it would look for one on the network
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def location() -> Path:
    """Where the program for the installed llama-cpp-python is or would be; absolute."""
    return (_folder() / "build" / "bin" / TARGET).absolute()


def require() -> Path:
    """The program.

    Raises:
        ToolError: it has not been built for the installed version.
    """
    found = location()
    if not found.exists():
        raise ToolError(
            f"no {TARGET} of {DISTRIBUTION} {version(DISTRIBUTION)}",
            remedy=f"{REMEDY}   (compiles it: about ten minutes)",
        )
    return found


def build(jobs: int = 1) -> Path:
    """Download, configure and compile what is not here yet; an interrupted build goes on.

    Raises:
        ToolError: no CMake, or pip, CMake or the compiler failed.
    """
    program, source = location(), _folder() / "source"
    if program.exists():
        return program
    if shutil.which("cmake") is None:
        raise ToolError("no cmake on PATH", remedy=f"pip install cmake ninja, then {REMEDY}")
    if not source.exists():
        with new_directory(source) as fresh:
            _fetch(fresh)
    where = _folder() / "build"
    configure = ["cmake", "-S", str(source), "-B", str(where)]
    configure += [f"-D{name}={value}" for name, value in OPTIONS.items()]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    _run(configure)
    _run(["cmake", "--build", str(where), "--target", TARGET, "--parallel", str(jobs)])
    return program


def _folder() -> Path:
    return FOLDER / version(DISTRIBUTION)


def _fetch(destination: Path) -> None:
    """Unpack `vendor/llama.cpp` of the installed version's sdist."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder]
        _run([*command, f"{DISTRIBUTION}=={version(DISTRIBUTION)}"])
        (sdist,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if parts[1:3] == ("vendor", "llama.cpp") and len(parts) > 3:
                    member.name = str(PurePosixPath(*parts[3:]))
                    archive.extract(member, destination, filter="data")
    if not (destination / "tools" / "perplexity" / "perplexity.cpp").exists():
        raise ToolError(f"{sdist.name} holds no {TARGET}", remedy="report this version to us")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        raise ToolError(
            f"{' '.join(command[:3])} … failed (exit {done.returncode}):\n  "
            + "\n  ".join(said[-12:]),
            remedy=f"look at the last lines, then {REMEDY}",
        )


def main() -> None:
    """Print the program's path, once it is there."""
    try:
        print(build(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
    except ToolError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
