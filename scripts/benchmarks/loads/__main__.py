"""Run one of the loads; print what it returns, or each thing that it yields."""

from __future__ import annotations

import json
import sys
from importlib import import_module

module, _, function = sys.argv[1].partition(".")
seen = getattr(import_module(f"benchmarks.loads.{module}"), function)(*json.loads(sys.argv[2]))
for report in [seen] if isinstance(seen, dict) else seen:
    print(json.dumps(report), flush=True)
