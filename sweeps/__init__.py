"""The sweep file, its search space and strategies, the HTTP server, the command line."""
