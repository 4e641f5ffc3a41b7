"""Django's command line, which starts and stops the embedded servers that a command needs."""

import sys


def main() -> None:
    # Written so that the old Pythons that it turns away can compile it.
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(
            "Python %d.%d is too old: ragsite needs 3.11 or newer, for instance PYTHON=python3.12 make run."  # noqa: UP031
            % sys.version_info[:2]
        )
    try:
        from ragsite.launch import run_command
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("ragsite", "tenants", "knowledge", "feedback"):
            raise
        sys.exit(
            f'A dependency is missing or broken ({error}): use .venv/bin/python, which "make run" sets up.'
        )
    sys.exit(run_command(sys.argv))


if __name__ == "__main__":
    main()
