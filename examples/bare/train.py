"""Gradient descent with momentum down a narrow valley; it only prints."""

import argparse


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()

    x, y, vx, vy = 4.0, 2.0, 0.0, 0.0
    for step in range(args.steps):
        vx = args.momentum * vx - args.learning_rate * 0.2 * x
        vy = args.momentum * vy - args.learning_rate * 2.0 * y
        x, y = x + vx, y + vy
        print(f"step={step} loss={0.1 * x * x + y * y:.6g}", flush=True)


if __name__ == "__main__":
    main()
