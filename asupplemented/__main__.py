"""The program: ``asupplemented``, or ``python -m asupplemented``."""

from __future__ import annotations

import sys

__all__ = ("main",)


def main() -> None:
    """Run the command line and exit with its code.

    Raises:
        SystemExit: Always; see `asupplemented.cli.running` for the codes.
    """
    try:
        from asupplemented.cli.app import app  # noqa: PLC0415 - typer and rich are an extra

        app(prog_name="asupplemented")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"rich", "typer"}:
            raise
        message = f"the command line needs {package}: pip install 'asupplemented[cli]'"
        sys.exit(f"asupplemented: {message}")


if __name__ == "__main__":
    main()
