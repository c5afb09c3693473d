"""What bears on a SuperLink while it is measured: programs that print what they saw as JSON.

    python -m benchmarks.loads MODULE.FUNCTION ARGUMENTS (a list in JSON)

They are the same for both sides, and spend as little as they can: large messages are made before
the clock runs, and the answers are taken as bytes.
"""
