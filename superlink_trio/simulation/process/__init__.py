"""`--backend process`: apps run in worker processes on this machine.

    SuperLink                backend.py: open_process_backend
    └── workers              child.py: runs the app

A worker imports from here as well, and needs no Trio.
"""
