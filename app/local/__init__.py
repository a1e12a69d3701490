"""The whole network on one machine: what `make run` starts."""
