"""What scripts/abuse consists of."""
