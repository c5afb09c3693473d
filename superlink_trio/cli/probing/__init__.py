"""What `superlink-trio probe` does, step by step.

steps       a step: a call, how long it took, and what is said when it fails
tasks       a task of Flower 1.8 to 1.11, there and back
nodes       a node of Flower 1.23 and later, which comes and goes
"""
