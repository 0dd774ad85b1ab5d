"""What happens around a step: accumulation, averages, points, scaling and stopping; each works with any rule."""
