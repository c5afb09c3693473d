"""The bytes of Flower's protocol: generated messages, and tasks whose payloads stay unparsed."""
