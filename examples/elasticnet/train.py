"""ElasticNet on scikit-learn's diabetes data; prints what it found."""

import sys
import warnings

from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split


def score(alpha, l1_ratio):
    """(RMSE, R2) on the held-out quarter."""
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
    with warnings.catch_warnings():
        # Pure ridge (l1_ratio 0) makes coordinate descent complain; the grid has it on purpose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        predicted = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, random_state=0).fit(x_train, y_train).predict(x_test)
    return float(root_mean_squared_error(y_test, predicted)), float(r2_score(y_test, predicted))


if __name__ == "__main__":
    rmse, r2 = score(float(sys.argv[1]), float(sys.argv[2]))
    print(f"rmse={rmse!r} r2={r2!r}")
