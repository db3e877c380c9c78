"""Tunes LightGBM with Optuna as `benches/tuning.rs` does with Foretell; prints JSON. Its argument is JSON."""

import json
import sys
import time

import lightgbm
import numpy
import optuna

arguments = json.loads(sys.argv[1])
fixed = dict(pair.split("=") for pair in arguments["parameters"].split())
fixed.update(deterministic=True, force_col_wise=True, verbosity=-1, num_threads=1)
table = numpy.fromfile(arguments["path"], dtype=numpy.float64)
table = table.reshape(-1, arguments["features"] + 1)
features, labels = numpy.ascontiguousarray(table[:, :-1]), table[:, -1].copy()
optuna.logging.set_verbosity(optuna.logging.WARNING)


def folds(seed):
    """Stratified folds, each as the rows that are validated."""
    random = numpy.random.default_rng(seed)
    of = numpy.empty(len(labels), dtype=int)
    for label in numpy.unique(labels):
        rows = random.permutation(numpy.flatnonzero(labels == label))
        of[rows] = numpy.arange(len(rows)) % arguments["folds"]
    return [of == fold for fold in range(arguments["folds"])]


def tune(seed):
    data, leaves = [], []
    for validated in folds(seed):
        training = lightgbm.Dataset(
            features[~validated],
            labels[~validated],
            categorical_feature=arguments["categorical"],
            params={**fixed, "seed": seed},
            free_raw_data=False,
        ).construct()
        validation = training.create_valid(features[validated], labels[validated]).construct()
        data.append((training, validation))

    def objective(trial):
        parameters = {**fixed, "seed": seed}
        for name, low, high, log, whole in arguments["space"]:
            suggest = trial.suggest_int if whole else trial.suggest_float
            low, high = (int(low), int(high)) if whole else (low, high)
            parameters[name] = suggest(name, low, high, log=log)
        losses, iterations = [], []
        for number, (training, validation) in enumerate(data):
            stop = lightgbm.early_stopping(arguments["early_stopping_rounds"], verbose=False)
            booster = lightgbm.train(
                parameters,
                training,
                num_boost_round=arguments["iterations_max"],
                valid_sets=[validation],
                callbacks=[stop],
            )
            losses.append(booster.best_score["valid_0"]["binary_logloss"])
            iterations.append(booster.best_iteration)
            leaves.append(booster.current_iteration() * parameters["num_leaves"])
            trial.report(float(numpy.mean(losses)), number)
            if trial.should_prune():
                raise optuna.TrialPruned()
        trial.set_user_attr("iterations", round(float(numpy.mean(iterations))))
        return float(numpy.mean(losses))

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner()
    )
    # As Foretell, it begins with the defaults.
    study.enqueue_trial(arguments["start"])
    study.optimize(objective, n_trials=arguments["trials"])
    return study.best_params, study.best_value, study.best_trial.user_attrs["iterations"], sum(leaves)


started = time.process_time()
parameters, log_loss, iterations, leaves = tune(arguments["seed"])
seconds = time.process_time() - started
print(
    json.dumps(
        {
            "parameters": parameters,
            "log_loss": log_loss,
            "iterations": iterations,
            "seconds": seconds,
            "leaves": leaves,
        }
    )
)
