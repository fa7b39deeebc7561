"""Where Debian's Chromium is, and how it is installed."""

from __future__ import annotations

import os
import shutil

INSTALL = "apt-get install --no-install-recommends chromium fonts-dejavu-core"
REQUIRED = bool(os.environ.get("DRIFTLINE_REQUIRED_BROWSER"))
"""Whether its absence is a failure, not a skip."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("DRIFTLINE_CHROMIUM") or next(
    (found for name in _NAMES if (found := shutil.which(name))), "/usr/bin/chromium"
)
