"""What a node does and what the run does."""
