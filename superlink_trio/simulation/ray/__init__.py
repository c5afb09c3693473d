"""`--backend ray`: apps run in Ray actors, on this machine or on a cluster.

    SuperLink                       backend.py: open_ray_backend
    └── the driver's process        driver.py: holds Ray, because Ray may end the process it is in
        └── pool                    pool.py: a Trio task for each worker, which replaces it
            └── Ray's workers       actor.py: runs the app

The first two share a socket (protocol.py), and files in shared memory for what is large (`shares`).
A model reaches Ray's object store once, however many nodes get it. Import what is needed from these
modules: a worker needs `actor` alone, and no Trio.
"""
