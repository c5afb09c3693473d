"""What the state may ask of the database, by name, and where it is written down."""

from __future__ import annotations

from superlink_trio.state.sql import counting, nodes, runs, sweeping, task_ins, task_res
from superlink_trio.state.sql.transaction import Reading, Transaction


class Queries(Reading):
    """See `durable.engine.Queries`."""

    node_of_key = nodes.of_key
    online_nodes = nodes.online
    get_run = runs.read
    get_fab = runs.read_fab
    count_queued = task_ins.count_queued
    read_task = task_ins.read_large
    read_answer = task_res.read_large
    survey = task_res.survey
    census = counting.census


class Steps(Queries, Transaction):
    """See `durable.engine.Transaction`."""

    create_node = nodes.create
    create_simulated_node = nodes.create_simulated
    bind_node = nodes.bind
    admit_node = nodes.admit
    is_registered = nodes.is_registered
    pulled = nodes.pulled
    delete_node = nodes.delete
    create_run = runs.create
    store_task_ins = task_ins.store
    has_task = task_ins.has_some
    take_task_ins = task_ins.take
    confirm_task_ins = task_ins.confirm
    put_back_task_ins = task_ins.put_back
    store_task_res = task_res.store
    store_error = task_res.store_error
    take_task_res = task_res.take
    confirm_task_res = task_res.confirm
    put_back_task_res = task_res.put_back
    purge_collected = task_res.purge
    age_collected = task_res.age
    sweep = sweeping.sweep
