"""`/api/v1`: shapes, routes (one file a resource), and the rights they need. `sweeps.server` composes them into the app."""
