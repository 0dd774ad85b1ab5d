"""What everything rests on: it knows nothing of fastopt above it."""
