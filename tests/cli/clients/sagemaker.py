"""Scores rows with boto3, the client of SageMaker: sagemaker.py URL CSV JSON. Prints the answers as JSON."""

import json
import sys

import boto3
from botocore.exceptions import ClientError

address, csv, rows = sys.argv[1:]
client = boto3.client(
    "sagemaker-runtime",
    endpoint_url=address,
    region_name="eu-central-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
)


def invoke(body, kind, accept):
    answer = client.invoke_endpoint(EndpointName="adult-prod", Body=body, ContentType=kind, Accept=accept)
    assert answer["ContentType"] == accept, answer
    return answer["Body"].read().decode()


try:
    invoke(json.dumps({"instances": [{"ages": 3}]}), "application/json", "application/json")
    error = None
except ClientError as refused:
    error = str(refused)
lines = "".join(json.dumps(row) + "\n" for row in json.loads(rows)["instances"])
print(
    json.dumps(
        {
            "json": json.loads(invoke(rows, "application/json", "application/json")),
            "csv": invoke(csv, "text/csv", "text/csv"),
            "lines": [json.loads(line) for line in invoke(lines, "application/jsonlines", "application/jsonlines").splitlines()],
            "error": error,
        }
    )
)
