"""What outlives an optimizer: its state as a dict, in a file, pickled."""
