"""`MemoryMessages`: the contract, kept by dictionaries. Gone with the process."""

from superlink_trio.state.messages.memory.store import MemoryMessages

__all__ = ["MemoryMessages"]
