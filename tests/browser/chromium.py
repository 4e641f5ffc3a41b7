"""The browser of the tests and of the tour."""

import os
import shutil

DESKTOP, PHONE = (1440, 900), (375, 812)
# Without the background flags Chromium looks for its maker's servers at every start.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str:
    """Chromium's path. Its headless shell draws the same pages in three quarters of the time.

    Raises:
        LookupError: it is not installed.
    """
    installed = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    for name in (os.environ.get("CHROMIUM", ""), *installed):
        if name and (found := shutil.which(name)):
            return found
    raise LookupError("The browser tests need Chromium: install it, or name it in CHROMIUM.")
