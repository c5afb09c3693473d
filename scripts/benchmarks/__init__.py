"""What `scripts/bench` measures: a module for each kind of rows, and `loads`, what bears on them.

The measuring process starts SuperLinks and loads, reads /proc and writes the table. It makes no
gRPC call of its own: grpc does not bear a fork after its start.
"""
