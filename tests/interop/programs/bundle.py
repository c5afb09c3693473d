"""Bundle a project as `flwr build` of 1.11 does, and read its config as a node of 1.11 does.

`bundle PROJECT`: prints, as JSON, the name of the bundle in the working directory, and the config
of a run that overrides `lr` by 0.1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flwr.cli.build import build
from flwr.common.config import get_fused_config_from_fab
from flwr.common.typing import Run

name = build(Path(sys.argv[1]))
run = Run(run_id=1, fab_id="", fab_version="", fab_hash="", override_config={"lr": 0.1})
config = get_fused_config_from_fab(Path(name).read_bytes(), run)
print(json.dumps({"bundle": name, "config": config}))
