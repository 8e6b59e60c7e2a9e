"""Prints what it was given, and logs nothing with W&B: the metric stands in what it prints."""

import json
import os
import sys

print("saw", json.dumps([*sys.argv[1:], os.environ.get("DATA_DIR", "no DATA_DIR")]))
print(f"Epoch 1/1 loss: {len(sys.argv)}")
