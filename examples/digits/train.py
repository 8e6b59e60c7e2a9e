"""Train an MLP on scikit-learn's digits, epoch by epoch; log its curves and keep its weights.

`sweep_client` is one standard-library module that a worker puts on the path of a trial. Without it, as in
`python train.py`, the script trains just the same.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

try:
    import sweep_client
except ImportError:
    sweep_client = None


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=64, help="units in the hidden layer")
    parser.add_argument("--lr", type=float, default=0.003, help="learning rate of Adam")
    parser.add_argument("--alpha", type=float, default=1e-4, help="L2 penalty")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    return parser.parse_args()


def load_split():
    pixels, digits = load_digits(return_X_y=True)
    return train_test_split(pixels / 16.0, digits, test_size=0.25, random_state=0, stratify=digits)


def save_model(model, folder):
    """The weights as plain arrays: no pickle, so any numpy can read them."""
    folder.mkdir(exist_ok=True)
    layers = {f"weights_{i}": w for i, w in enumerate(model.coefs_)} | {f"bias_{i}": b for i, b in enumerate(model.intercepts_)}
    np.savez(folder / "weights.npz", **layers)
    (folder / "model.json").write_text(json.dumps({"activation": model.activation, "classes": model.classes_.tolist()}))


def main():
    args = parse_args()
    x_train, x_val, y_train, y_val = load_split()
    model = MLPClassifier(hidden_layer_sizes=(args.hidden,), learning_rate_init=args.lr, alpha=args.alpha, batch_size=args.batch_size, random_state=0)
    for epoch in range(args.epochs):
        model.partial_fit(x_train, y_train, classes=np.arange(10))
        metrics = {
            "train_loss": float(model.loss_),
            "val_loss": float(log_loss(y_val, model.predict_proba(x_val), labels=model.classes_)),
            "val_accuracy": float(model.score(x_val, y_val)),
        }
        print(f"epoch {epoch + 1} of {args.epochs}: {metrics['val_accuracy']:.2%} of the validation digits are right", flush=True)
        if sweep_client:
            sweep_client.log(metrics, step=epoch)
    save_model(model, Path("model"))
    if sweep_client:
        sweep_client.log_artifact("model")


if __name__ == "__main__":
    main()
