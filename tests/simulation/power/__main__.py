"""`python -m tests.simulation.power`: cut the power at many places, and say what that showed."""

from __future__ import annotations

import sys

from tests.simulation.power.cuts import main

sys.exit(main())
