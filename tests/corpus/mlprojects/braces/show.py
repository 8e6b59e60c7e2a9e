"""Prints the arguments it was given."""

import json
import sys

print("saw", json.dumps(sys.argv[1:]))
