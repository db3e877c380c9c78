"""Trains with Python's LightGBM as `benches/learning/main.rs` does; prints the seconds of CPU time. Its argument is JSON."""

import json
import sys
import time

import lightgbm
import numpy

arguments = json.loads(sys.argv[1])
parameters = dict(pair.split("=") for pair in arguments["parameters"].split())
parameters.update(deterministic=True, force_col_wise=True, verbosity=-1)
table = numpy.fromfile(arguments["path"], dtype=numpy.float64)
table = table.reshape(-1, arguments["features"] + 1)
features, labels = numpy.ascontiguousarray(table[:, :-1]), table[:, -1].copy()
held_out = numpy.arange(len(labels)) % 5 == 0


def train(rows, labels):
    data = lightgbm.Dataset(rows, labels, categorical_feature=arguments["categorical"])
    return lightgbm.train(parameters, data, num_boost_round=arguments["iterations"])


started = time.process_time()
# As `foretell_ml::training::train`: once without a fifth, which is predicted, and once with all.
train(features[~held_out], labels[~held_out]).predict(features[held_out])
train(features, labels)
print(time.process_time() - started)
