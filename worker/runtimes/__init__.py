"""How an attempt's command is run: as a process of this machine, or in a container."""
