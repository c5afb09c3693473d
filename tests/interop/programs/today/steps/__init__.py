"""An app that does what its run's config says."""
