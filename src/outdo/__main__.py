"""`python -m outdo` is `outdo`."""

import sys

from outdo.cli import main

sys.exit(main())
