"""`DurableMessages`: the contract, kept by steps in a database. Read `engine` first."""

from superlink_trio.state.messages.durable.store import DurableMessages

__all__ = ["DurableMessages"]
