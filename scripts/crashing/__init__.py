"""What scripts/crash consists of."""
