"""Loads the champion of a registered model from MLflow, and compares its predictions with those of Foretell.

mlflow_models.py TRACKING_URI MODEL PREDICTIONS prints a JSON object. PREDICTIONS has a JSON object in each line, with the
answers by name and the probabilities by class.
"""

import json
import pathlib
import sys

import mlflow
import numpy
import pandas


def largest_difference(expected, found):
    return float(numpy.abs(expected - found).max())


def main(uri, name, predictions):
    mlflow.set_tracking_uri(uri)
    lines = pathlib.Path(predictions).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    rows = pandas.DataFrame([record["answers"] for record in records])
    expected = pandas.DataFrame([record["probabilities"] for record in records])

    address = f"models:/{name}@champion"
    model = mlflow.pyfunc.load_model(address)
    found = model.predict(rows)
    pyfunc = largest_difference(expected.to_numpy(), found[list(expected.columns)].to_numpy())

    # The trees take features, which the module beside them makes.
    folder = pathlib.Path(mlflow.artifacts.download_artifacts(address))
    sys.path.insert(0, str(folder / "code"))
    from foretell_model import Model

    features = Model.load(folder).features(rows.astype(object).where(rows.notna(), None).to_dict("records"))
    booster = mlflow.lightgbm.load_model(address)
    last = booster.predict(features)
    lightgbm = largest_difference(expected.iloc[:, 1].to_numpy(), last)

    example = model.predict(model.input_example)
    answer = {
        "rows": len(rows),
        "pyfunc": pyfunc,
        "lightgbm": lightgbm,
        "foretell_model_version": model.metadata.metadata["foretell_model_version"],
        "example": round(float(example.to_numpy().sum()), 9),
        "signature": str(model.metadata.signature),
    }
    print(json.dumps(answer))


main(*sys.argv[1:])
