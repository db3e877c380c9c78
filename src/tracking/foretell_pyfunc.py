"""Loads a model of Foretell for `mlflow.pyfunc`: raw answers in, the probability of each class out.

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    probabilities = model.predict(pandas.DataFrame([{"age": 39, "education": "Bachelors"}]))

A column that is missing, None or NaN is a missing answer. The result has a column for each class.
"""

import pandas

from foretell_model import Model


def _load_pyfunc(path):
    return Scorer(Model.load(path))


class Scorer:
    """A model, as `mlflow.pyfunc` calls it."""

    def __init__(self, model):
        self.model = model

    def predict(self, model_input, params=None):
        """The probabilities for a DataFrame, a mapping from columns to lists, or a list of rows."""
        if isinstance(model_input, list) and all(isinstance(row, dict) for row in model_input):
            frame = pandas.DataFrame.from_records(model_input)
        else:
            frame = pandas.DataFrame(model_input)
        rows = [
            {name: None if _is_missing(value) else value for name, value in row.items()}
            for row in frame.to_dict("records")
        ]
        probabilities = self.model.predict(rows)
        return pandas.DataFrame(probabilities, columns=self.model.classes, index=frame.index)


def _is_missing(value):
    return value is None or (pandas.api.types.is_scalar(value) and pandas.isna(value))
