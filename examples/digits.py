"""A network of two hidden layers learns handwritten digits, in NumPy and fastopt: pip install fastopt[demo]."""

import itertools

import numpy as np
from sklearn.datasets import load_digits

import fastopt

rng = np.random.default_rng(0)
images, classes = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
order = rng.permutation(len(images))
test, train = order[:360], order[360:]

shapes = itertools.pairwise([64, 256, 128, 10])
params = [{"W": (rng.standard_normal(s) * np.sqrt(2 / s[0])).astype("f"), "b": np.zeros(s[1], "f")} for s in shapes]
opt = fastopt.AdamW(params, lr=1e-3, weight_decay=1e-2)


def forward(x):
    inputs = [x]
    for layer in params:
        inputs.append(np.maximum(inputs[-1] @ layer["W"] + layer["b"], 0))
    return inputs[:-1], inputs[-2] @ params[-1]["W"] + params[-1]["b"]


for _ in range(30):
    for batch in np.split(rng.permutation(train), range(32, len(train), 32)):
        inputs, scores = forward(images[batch])
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        slope = (p / p.sum(axis=1, keepdims=True) - np.eye(10, dtype="f")[classes[batch]]) / len(batch)
        grads = []
        for layer, x in zip(reversed(params), reversed(inputs), strict=True):
            grads.insert(0, {"W": x.T @ slope, "b": slope.sum(axis=0)})
            slope = (slope @ layer["W"].T) * (x > 0)
        opt.step(grads)

print(f"test accuracy {np.mean(forward(images[test])[1].argmax(axis=1) == classes[test]):.2%} after {opt.t} steps")
