"""`python -m dashboard` is `edge-dashboard`."""

import sys

from dashboard.cli import main

sys.exit(main())
