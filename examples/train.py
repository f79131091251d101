"""A training job with an address: watch it, change its learning rate, redirect it, stop it, while it runs.

    python examples/train.py                                   # in one terminal
    natsproc tail train                                        # in another
    natsproc send train --json '{"learning_rate": 0.001}'
    natsproc interrupt train -m '{"model": "mlp"}' --json      # stop this model, train a neural network
    natsproc interrupt train                                   # enough

It trains on scikit-learn's digits, each nudged by a pixel in every direction: 8,620 images to learn from and 360
whole ones to be tested on.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import natsproc

CLASSES = np.arange(10)


def digits() -> tuple[Any, Any, Any, Any]:
    """The data: images as rows of 64 numbers from 0 to 1, and which digit each is."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images / 16.0, labels, test_size=360, random_state=0)
    square = train_x.reshape(-1, 8, 8)
    nudged = [square] + [np.roll(square, step, axis) for step in (-1, 1) for axis in (1, 2)]
    return np.concatenate(nudged).reshape(-1, 64), np.tile(train_y, 5), test_x, test_y


def classifier(name: str, learning_rate: float) -> Any:
    if name == "mlp":
        return MLPClassifier((96,), learning_rate_init=learning_rate, batch_size=256, random_state=0)
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=learning_rate, random_state=0)


def set_learning_rate(model: Any, value: float) -> None:
    model.set_params(
        **({"learning_rate_init": value} if isinstance(model, MLPClassifier) else {"eta0": value})
    )
    if optimizer := getattr(model, "_optimizer", None):
        optimizer.learning_rate_init = value


@natsproc.process
def train(proc: natsproc.BlockingProcess, model: str = "linear", epochs: int = 150) -> dict[str, Any]:
    """Train until told otherwise; an interrupt with `{"model": …}` begins another model."""
    data = digits()
    proc.log(f"{len(data[0])} images to learn from, {len(data[2])} to be tested on", classes=len(CLASSES))
    while True:
        try:
            with proc.interruptible():
                return fit(proc, data, model, epochs)
        except natsproc.Interrupted as stop:
            if not isinstance(stop.message, dict) or "model" not in stop.message:
                raise
            model = str(stop.message["model"])
            proc.log(f"{stop.sender} wants another model: {model}", level="warning")


def fit(proc: natsproc.BlockingProcess, data: Any, name: str, epochs: int) -> dict[str, Any]:
    train_x, train_y, test_x, test_y = data
    rate = 0.01
    model = classifier(name, rate)
    shuffle = np.random.default_rng(0)
    accuracy = 0.0
    for epoch in range(1, epochs + 1):
        order = shuffle.permutation(len(train_x))
        for part in np.array_split(order, 8):
            model.partial_fit(train_x[part], train_y[part], classes=CLASSES)
            proc.check()  # where pause and interrupt land
        try:
            wanted = proc.receive(timeout=0).data
        except natsproc.TimedOut:
            pass
        else:
            rate = float(wanted["learning_rate"])
            set_learning_rate(model, rate)
            proc.log(f"learning rate is {rate} now", learning_rate=rate)
        accuracy = float(model.score(test_x, test_y))
        loss = float(-np.log(model.predict_proba(test_x)[np.arange(len(test_y)), test_y] + 1e-9).mean())
        proc.progress(epoch, epochs, name)
        proc.metric(loss=round(loss, 4), accuracy=round(accuracy, 4), learning_rate=rate)
    return {"model": name, "accuracy": round(accuracy, 4), "epochs": epochs}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        print(natsproc.run(train, id=sys.argv[1] if len(sys.argv) > 1 else "train", restart=True))
    except natsproc.Interrupted as stop:
        print(f"stopped: {stop}")
    except natsproc.Error as error:
        sys.exit(f"natsproc: {error}")
