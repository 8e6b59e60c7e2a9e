"""`python -m sweeps.cli`: the `sweep` command without its console script."""

import sys

from sweeps.cli import main

sys.exit(main())
