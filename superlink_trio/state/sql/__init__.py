"""What the databases that speak SQL share: the steps, in statements that all of them understand.

Read in this order:

- `transaction`: what a step is given, and what an engine has to add to it;
- `task_ins`, `task_res`, `nodes`, `runs`, `sweeping`: the steps, plain functions over SQL, and
  `steps`, which gives them the names that the state calls them by; `rows`: tasks as rows;
- `committing`, `faults`: steps in one transaction; `readers`: connections that read beside it;
- `counting`: what is in the database, for operators;
- `messages`: the same for Flower 1.23 and later, over tables of its own.

A statement marks its values by `?`. It says which rows it locks (`FOR UPDATE`): a database that
several write to at once needs that, and to one that is locked as a whole it means nothing. A list
is passed as JSON and read by `json_each`. Tables that are joined in the order that is written are
so by CROSS JOIN, of several values `greatest` and `least` choose. An engine puts these into its own
words.
"""
