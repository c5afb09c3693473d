"""An app with a strategy of `flwr.server`, for NumPyClients."""
