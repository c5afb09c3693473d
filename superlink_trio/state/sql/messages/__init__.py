"""Nodes, runs and messages of Flower 1.23 and later, in statements that all databases understand.

Read in this order:

- `transaction`: what a database adds by its own means;
- `nodes`, `runs`, `objects`, `messages`, `sweeping`: the steps, plain functions over SQL, and
  `steps`, which gives them the names that the state calls them by; `resuming`: the first of them.
"""
