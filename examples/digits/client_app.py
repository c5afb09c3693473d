"""A node: logistic regression on its share of scikit-learn's handwritten digits."""

from functools import cache

import numpy as np
from flwr.client import Client, ClientApp, NumPyClient
from sklearn.datasets import load_digits

NODES = 20
STEPS, LEARNING_RATE = 20, 0.5


@cache  # a worker is many nodes, one after another
def share_of(partition: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Give one node's images (n, 64) and labels (n,): for training, then for evaluation."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed=1).permutation(len(labels))
    mine = order[partition % NODES :: NODES]
    held_back, training = mine[: len(mine) // 5], mine[len(mine) // 5 :]
    images = images / 16
    return images[training], labels[training], images[held_back], labels[held_back]


def probabilities(model: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    weights, bias = model
    scores = images @ weights + bias
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
    return likelihoods / likelihoods.sum(axis=1, keepdims=True)


class Node(NumPyClient):
    def __init__(self, partition: int) -> None:
        self.images, self.labels, self.test_images, self.test_labels = share_of(partition)

    def fit(self, model, config):
        weights, bias = model
        for _ in range(STEPS):
            wrong_by = probabilities([weights, bias], self.images) - np.eye(10)[self.labels]
            weights = weights - LEARNING_RATE * self.images.T @ wrong_by / len(self.labels)
            bias = bias - LEARNING_RATE * wrong_by.mean(axis=0)
        return [weights, bias], len(self.labels), {}

    def evaluate(self, model, config):
        found = probabilities(model, self.test_images)
        of_truth = found[np.arange(len(self.test_labels)), self.test_labels]
        accuracy = (found.argmax(axis=1) == self.test_labels).mean()
        return float(-np.log(of_truth).mean()), len(self.test_labels), {"accuracy": float(accuracy)}


def client_fn(cid: str) -> Client:
    return Node(partition=int(cid)).to_client()


app = ClientApp(client_fn=client_fn)
