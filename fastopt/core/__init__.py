"""The compiled core, and what this machine offers it."""
