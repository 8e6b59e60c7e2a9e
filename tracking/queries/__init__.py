"""SQL, one file per table. Statements are text, so that they can be read, explained and planned as they run.

Values are always bound (`%(name)s`). The state lists come from `tracking.states` through `moves`.
"""
