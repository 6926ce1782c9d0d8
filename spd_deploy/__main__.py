"""``python -m spd_deploy``: the command line, where the script ``spd`` is not on the path."""

import os
import sys
from pathlib import Path

# ``python -m`` puts the working folder first, where a user's serve.py would stand in for ours.
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != str(Path(__file__).parents[1]):
    del sys.path[0]

from spd_deploy.cli.main import main

main()
