"""`--backend ray`: apps run in Ray actors, on this machine or on a cluster.

    SuperLink                       backend.py: open_ray_backend
    └── the driver's process        driver.py: holds Ray, because Ray may end the process it is in
        └── pool                    pool.py: a Trio task for each worker, which replaces it
            └── Ray's workers       actor.py: runs the app

The first two share a socket (frames.py); a model's bytes lie beside it (contents.py) and reach
Ray's object store once, however many nodes get them. Import what is needed from these modules: a
worker needs `actor` alone, and no Trio.
"""
