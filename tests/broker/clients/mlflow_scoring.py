"""Scores rows with MLflow's client of scoring servers, and with the Python module in the folder of the model.

mlflow_scoring.py PORT FOLDER prints a JSON object with the largest difference.
"""

import json
import sys

import pandas
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

port, folder = sys.argv[1:]
sys.path.insert(0, folder)
from foretell_model import Model  # noqa: E402

rows = [
    {"age": 39, "education": "Bachelors", "hours_per_week": 40},
    {"age": 52, "education": "Masters", "hours_per_week": 60},
    {"age": None, "education": "never seen", "hours_per_week": 20},
]
client = ScoringServerClient("127.0.0.1", port)
client.wait_server_ready()
# A column of objects keeps None and whole numbers; in a column of numbers pandas would make them NaN and floats.
answer = client.invoke(pandas.DataFrame(rows, dtype=object))
predictions = answer["predictions"]
expected = Model.load(folder).predict(rows)
pairs = [(list(one["probabilities"].values()), found) for one, found in zip(predictions, expected)]
print(
    json.dumps(
        {
            "rows": len(predictions),
            "difference": max(abs(a - b) for served, found in pairs for a, b in zip(served, found)),
            "version": client.get_version().strip(),
        }
    )
)
