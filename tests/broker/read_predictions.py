"""Reads predictions without any code of Foretell: kcat for the records, fastavro for the values, schemas from the registry.

read_predictions.py KCAT BROKERS REGISTRY TOPIC prints one JSON object a record.
"""

import io
import json
import struct
import subprocess
import sys
import urllib.request

import fastavro

kcat, brokers, registry, topic = sys.argv[1:]
schemas = {}


def schema(number):
    if number not in schemas:
        with urllib.request.urlopen(f"{registry}/schemas/ids/{number}", timeout=10) as answer:
            schemas[number] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
    return schemas[number]


# A line of partition, offset, timestamp and key, then the value's length in four bytes, then the value.
command = [kcat, "-C", "-q", "-b", brokers, "-t", topic, "-o", "beginning", "-e", "-f", "%p %o %T %k\n%R%s"]
records = subprocess.run(
    command + ["-X", "isolation.level=read_committed"], stdout=subprocess.PIPE, timeout=60, check=True
)
stream = io.BytesIO(records.stdout)
while line := stream.readline():
    partition, offset, timestamp, key = line.decode().rstrip("\n").split(" ", 3)
    (length,) = struct.unpack(">i", stream.read(4))
    value = io.BytesIO(stream.read(length))
    magic, number = struct.unpack(">bI", value.read(5))
    assert magic == 0, f"not in Confluent's wire format: first byte {magic}"
    prediction = fastavro.schemaless_reader(value, schema(number), None)
    assert not value.read(), "bytes after the value"
    record = {"partition": int(partition), "offset": int(offset), "timestamp": int(timestamp), "key": key}
    print(json.dumps({**record, "schema_id": number, "value": prediction}, default=str))
