"""Decides: what to try next, which worker runs it, and what an end means."""
