"""Compares an exported model with the numbers of `expected.json`; its argument is the folder. Prints JSON."""

import json
import pathlib
import sys

import lightgbm
import numpy

folder = pathlib.Path(sys.argv[1])
sys.dont_write_bytecode = True
sys.path.insert(0, str(folder))

from foretell_model import Model  # noqa: E402

expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
model = Model.load(folder)


def value(encoded):
    return float(encoded["float"]) if isinstance(encoded, dict) else encoded


rows = [dict(zip(expected["columns"], map(value, row["values"]))) for row in expected["rows"]]
features = model.features(rows)
wanted = numpy.array([[value(one) for one in row["features"]] for row in expected["rows"]])
with numpy.errstate(invalid="ignore"):
    # Relative to the size of a large number; NaN equals NaN only.
    scale = numpy.maximum(numpy.abs(wanted), 1.0)
    differences = numpy.abs(features / scale - wanted / scale)
    same = (features == wanted) | (numpy.isnan(features) & numpy.isnan(wanted))
differences = numpy.where(same, 0.0, numpy.where(numpy.isnan(differences), 1.0, differences))

probabilities = model.predict(rows)
decisions = model.decide(probabilities)
labels = [model.classes[row["label"]] for row in expected["rows"]]
gains, splits = (model.booster.feature_importance(kind) for kind in ("gain", "split"))
wanted_gains = numpy.array(expected["gains"])

trained = []
if expected["iterations"] > 0:
    # A model of a notebook: trained by Python on the features of the pipeline.
    data = lightgbm.Dataset(
        features,
        [row["label"] for row in expected["rows"]],
        feature_name=model.feature_names(),
        categorical_feature=expected["categorical"],
    )
    parameters = {"objective": "binary", "verbosity": -1, "num_leaves": 15}
    booster = lightgbm.train(parameters, data, num_boost_round=expected["iterations"])
    booster.save_model(folder / "trained.txt")
    trained = booster.predict(features).tolist()

print(
    json.dumps(
        {
            "probability": float(
                numpy.abs(probabilities - [row["probabilities"] for row in expected["rows"]]).max()
            ),
            "feature": float(differences.max()),
            "gain": float((numpy.abs(gains - wanted_gains) / numpy.maximum(wanted_gains, 1.0)).max()),
            "decisions": sum(found != label for found, label in zip(decisions, labels)),
            "splits": int((splits != numpy.array(expected["splits"])).sum()),
            "trained": trained,
        }
    )
)
