"""What a trial may import: `sweep_client`, standard library only, for any Python from 3.6 on. A worker puts this folder on its path."""
