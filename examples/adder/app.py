import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.server import ServerApp, ServerConfig


class Adder(NumPyClient):
    def get_parameters(self, config):
        return [np.zeros(3)]

    def fit(self, parameters, config):
        return [parameters[0] + 1], 1, {}

    def evaluate(self, parameters, config):
        return float(parameters[0].sum()), 1, {}


client = ClientApp(client_fn=lambda cid: Adder().to_client())
server = ServerApp(config=ServerConfig(num_rounds=3))
