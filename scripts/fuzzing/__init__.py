"""What scripts/fuzz consists of."""
