"""What the state may ask of the database about messages, by name."""

from __future__ import annotations

from superlink_trio.state.sql.messages import messages, nodes, objects, resuming, runs, sweeping
from superlink_trio.state.sql.messages.transaction import Reading, Transaction


class MessageQueries(Reading):
    """See `messages.durable.engine.MessageQueries`."""

    has_node = nodes.exists
    has_node_of_key = nodes.has_key
    has_run = runs.goes_on
    has_token = runs.has_token
    read_run = runs.read
    newest_runs = runs.newest
    logs = runs.logs
    has_instruction = messages.has_instruction
    asked = messages.asked
    get_object = objects.get
    online_nodes = nodes.online
    online_until = nodes.online_until


class MessageSteps(MessageQueries, Transaction):
    """See `messages.durable.engine.MessageTransaction`."""

    resume = resuming.resume
    look_at_all = resuming.look_at_all
    stop_serving = resuming.stop_serving
    look_at_nodes = nodes.look
    look_at_node_of_key = nodes.look_by_key
    look_at_runs = runs.look
    look_at_run_of_token = runs.look_by_token
    pulled = nodes.pulled
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
    give_up_run = runs.give_up
    finish_run = runs.finish
    log = runs.log
    push = messages.push
    put_object = messages.put_object
    arrive = messages.arrive
    take = messages.take
    take_replies = messages.take_replies
    confirm = messages.confirm
    sweep = sweeping.sweep
    purge = sweeping.purge
