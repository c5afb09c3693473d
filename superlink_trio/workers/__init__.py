"""A SuperLink of several processes on one machine, which serve together.

One process, the parent, serves nobody but operators: it holds the ports, starts the workers,
restarts who fails and stops all of them. Each worker is a whole SuperLink over the shared database.

ports      what listens where, for as long as there is a worker
parts      which worker serves what
messages   what parent and workers tell each other
place      one worker, through all the lives of its process, as a supervised service
gathering  what operators are shown, asked of all workers
team       the tree of the parent, and its handle
logs       a worker's log on its way to the parent's
worker     the other side: what runs in a worker
"""
