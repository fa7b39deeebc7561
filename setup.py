"""Builds a wheel that has what `driftline init` copies; all else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TOP = Path(__file__).resolve().parent
PACKAGES = TOP / "pipeline"
sys.path.insert(0, str(PACKAGES))  # a build backend does not have it there

from driftline.starter.shipped import DATA, SHIPPED  # noqa: E402


class WithStarter(build_py):
    """Copies the shipped files into the package as it is built; an editable one reads them here."""

    def run(self) -> None:
        """Build, then copy: a file that is missing fails the build."""
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib, DATA.relative_to(PACKAGES), name)
                self.mkpath(str(target.parent))
                self.copy_file(str(TOP / name), str(target))

    def get_source_files(self) -> list[str]:
        """So that a source distribution has them too."""
        return [*super().get_source_files(), *SHIPPED]


setup(cmdclass={"build_py": WithStarter})
