"""The program ``spd``, and ``python -m spd_deploy`` where the script is not on the path."""

import os
import sys


def main() -> None:
    """Run the command line; a Ctrl-C while its modules are loaded ends it in one line, too."""
    try:
        from spd_deploy.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("spd: stopped; run the command again\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    # ``python -m`` puts the working folder first, where a user's serve.py would stand in for ours,
    # and a user's pathlib.py for Python's: nothing that is not loaded yet may be imported before.
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and sys.path[0] == os.getcwd() != here:
        del sys.path[0]
    main()
