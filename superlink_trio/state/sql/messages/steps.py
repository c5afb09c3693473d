"""What the state may ask of the database about messages, by name."""

from __future__ import annotations

from superlink_trio.state.sql.messages import messages, nodes, objects, resuming, runs, sweeping
from superlink_trio.state.sql.messages.transaction import Reading, Transaction


class MessageQueries(Reading):
    """See `messages.durable.engine.MessageQueries`."""

    read_run = runs.read
    newest_runs = runs.newest
    logs = runs.logs
    has_instruction = messages.has_instruction
    asked = messages.asked
    get_object = objects.get


class MessageSteps(MessageQueries, Transaction):
    """See `messages.durable.engine.MessageTransaction`."""

    resume = resuming.resume
    register_node = nodes.register
    admit_node = nodes.admit
    activate_node = messages.activate
    update_node = nodes.update
    unregister_node = nodes.unregister
    forget_nodes = nodes.forget
    write_heartbeats = nodes.write_heartbeats
    create_run = runs.create
    claim_run = runs.claim
    unclaim_run = runs.unclaim
    begin_run = runs.begin
    finish_run = runs.finish
    log = runs.log
    push = messages.push
    put_object = messages.put_object
    take = messages.take
    take_replies = messages.take_replies
    confirm = messages.confirm
    sweep = sweeping.sweep
    purge = sweeping.purge
