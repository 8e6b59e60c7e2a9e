"""Runs attempts: claims what was placed here, supervises processes and containers, reports outcomes."""
