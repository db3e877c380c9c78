"""Scores two rows with tritonclient, the client of Triton: triton.py ADDRESS MODEL. Prints the answers as JSON."""

import json
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
model = sys.argv[2]
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
metadata = client.get_model_metadata(model)


def inputs(binary):
    age = triton.InferInput("age", [2, 1], "FP64")
    age.set_data_from_numpy(numpy.array([[39.0], [float("nan")]]), binary_data=binary)
    education = triton.InferInput("education", [2], "BYTES")
    education.set_data_from_numpy(numpy.array(["Bachelors", "Masters"], dtype=object), binary_data=binary)
    hours = triton.InferInput("hours_per_week", [2], "INT32")
    hours.set_data_from_numpy(numpy.array([40, 60], dtype=numpy.int32), binary_data=binary)
    return [hours, age, education]


# JSON has no NaN, so only the binary tensors are sent with one.
answer = client.infer(model, inputs(True), request_id="7", model_version="champion", parameters={"reasons": 2})
try:
    client.infer(model, [triton.InferInput("age", [1], "FP64").set_data_from_numpy(numpy.array([1.0]))], model_version="x")
    error = None
except InferenceServerException as refused:
    error = refused.message()
print(
    json.dumps(
        {
            "id": answer.get_response()["id"],
            "version": answer.get_response()["model_version"],
            "versions": metadata["versions"],
            "inputs": {one["name"]: one["datatype"] for one in metadata["inputs"]},
            "labels": answer.as_numpy("label").tolist(),
            "classes": answer.as_numpy("classes").tolist(),
            "probabilities": answer.as_numpy("probabilities").tolist(),
            "reasons": [json.loads(one) for one in answer.as_numpy("reasons")],
            "error": error,
        }
    )
)
