"""The numbers that the design promises, each beside a peer or the raw limit, measured in one run: `make bench`."""
