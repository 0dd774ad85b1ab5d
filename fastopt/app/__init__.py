"""The command line and what it runs: on top, because it may use everything below."""
