"""``python -m spd_deploy``: the command line, where the script ``spd`` is not on the path."""

import os
import sys

# ``python -m`` puts the working folder first, where a user's serve.py would stand in for ours, and
# a user's pathlib.py for Python's: nothing that is not loaded yet may be imported before this.
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != _HERE:
    del sys.path[0]

from spd_deploy.cli.main import main  # noqa: E402

main()
