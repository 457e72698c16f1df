"""The program: ``asupplemented``, or ``python -m asupplemented``."""

from __future__ import annotations

import os
import sys

from asupplemented._version import __version__

__all__ = ("main",)


def main() -> None:
    """Run the command line and exit with its code.

    Raises:
        SystemExit: Always; see `asupplemented.cli.running` for the codes.
    """
    if sys.argv[1:] == ["--version"]:  # Scripts ask often, and need no command line for it.
        sys.exit(_print_version())
    try:
        from asupplemented.cli.app import app  # noqa: PLC0415 - click and rich are an extra

        app(prog_name="asupplemented")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"click", "rich"}:
            raise
        message = f"the command line needs {package}: pip install 'asupplemented[cli]'"
        sys.exit(f"asupplemented: {message}")


def _print_version() -> int:
    try:
        os.write(1, f"asupplemented {__version__}\n".encode())
    except OSError:  # The reader went away, or the disk is full.
        return 1
    return 0


if __name__ == "__main__":
    main()
