"""The steps of a pipeline."""

import json
import sys

print("saw", json.dumps(sys.argv[1:]))
given = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
for step in range(int(given["--rows"])):
    print(json.dumps({"step": step, "loss": float(given.get("--lr", 1)) / (step + 1)}))
