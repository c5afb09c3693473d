"""What the databases that speak SQL share: the steps, in statements that all of them understand.

Read in this order:

- `transaction`: what a step is given, and what an engine has to add to it;
- `task_ins`, `task_res`, `nodes`, `runs`, `sweeping`: the steps, plain functions over SQL, and
  `steps`, which gives them the names that the state calls them by; `rows`: tasks as rows;
- `committing`, `faults`: steps in one transaction; `readers`: connections that read beside it;
- `counting`: what is in the database, for operators.

A statement marks its values by `?`. It says which rows it locks (`FOR UPDATE`): a database that
several write to at once needs that, and to one that is locked as a whole it means nothing. A list
is passed as JSON and read by `json_each`. An engine puts these three into its own words.
"""
