"""gRPC under Trio."""
