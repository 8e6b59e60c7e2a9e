"""The record: tables, states, store, artifacts, and the protocols that write to it.

Imports none of the other packages; all of them import this one.
"""
