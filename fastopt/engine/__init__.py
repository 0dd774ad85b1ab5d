"""What makes a step: rules, programs, groups, and the passes beside it."""
