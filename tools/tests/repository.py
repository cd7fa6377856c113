"""Where the repository is. Whoever imports this can import what users have in tools/ as well."""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.append(str(TOP / "tools"))
