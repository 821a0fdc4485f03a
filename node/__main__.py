"""`python -m collegium.node --home DIR`: run one node's daemon in the foreground."""

import argparse
import os
import sys
from pathlib import Path

from ..crypto.errors import CollegiumError
from .home.paths import Home


def main() -> int:
    """Run the daemon; return its exit code (crypto/errors.py lists them)."""
    parser = argparse.ArgumentParser(prog="collegium.node", description="Run one node's daemon in the foreground.")
    parser.add_argument("--home", required=True, type=Path, help="the node's directory")
    parser.add_argument("--passphrase-file", type=Path, help="a file whose first line opens the key")
    parser.add_argument("--log", type=Path, help="write the log to this file, and rotate it by size")
    arguments = parser.parse_args()
    passphrase = os.environ.pop("COLLEGIUM_PASSPHRASE", None)
    if arguments.passphrase_file is not None:
        try:
            passphrase = arguments.passphrase_file.read_text().splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError) as error:
            sys.stderr.write(f"collegium: no passphrase in {arguments.passphrase_file}: {error}\n")
            return 2
    from .runtime import serve  # noqa: PLC0415 - a wrong option should not take a second to be told

    try:
        serve(Home(arguments.home), passphrase or None, log=arguments.log)
    except CollegiumError as error:
        sys.stderr.write(f"collegium: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
