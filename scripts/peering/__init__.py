"""What scripts and tests approach a SuperLink with: a raw client, its messages, and processes."""
