"""``python -m spd_deploy``: the command line, where the script ``spd`` is not on the path."""

from spd_deploy.cli.main import main

main()
