"""Transports carry calls between the network and the APIs; they decide nothing."""
