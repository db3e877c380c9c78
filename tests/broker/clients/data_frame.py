"""Reads predictions or labelled examples into a pandas data frame with a typed column for each question.

data_frame.py BROKERS REGISTRY TOPIC [CSV] prints the types and a description of the columns, and writes the table.
"""

import io
import json
import sys

import fastavro
import pandas
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

TYPES = {
    "long": "Int64",  # exact, with <NA> for no answer
    "double": "float64",
    "string": "string",
    "boolean": "boolean",
    "date": "datetime64[s]",
    "timestamp-millis": "datetime64[ms, UTC]",
    "timestamp-micros": "datetime64[us, UTC]",
}  # other dates and times are columns of Python objects


def values(brokers, topic):
    """The values of all records that are committed now."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "unused", "enable.partition.eof": True})
    unfinished = set(consumer.list_topics(topic, 60).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unfinished])
    while unfinished:
        message = consumer.poll(60)
        if message is None:
            sys.exit(f"did not reach the end of partitions {unfinished}")
        if message.error() is None:
            yield message.value()
        elif message.error().code() == KafkaError._PARTITION_EOF:
            unfinished.discard(message.partition())
        else:
            raise KafkaException(message.error())
    consumer.close()


def data_frame(brokers, registry, topic):
    registry = SchemaRegistryClient({"url": registry})
    # Records of every version are read with the newest: a renamed question is one column, and what is missing is null.
    newest = json.loads(registry.get_latest_version(f"{topic}-value").schema.schema_str)
    reader, writers, rows = fastavro.parse_schema(newest), {}, []
    for value in values(brokers, topic):
        number = int.from_bytes(value[1:5], "big")
        if number not in writers:
            writers[number] = fastavro.parse_schema(json.loads(registry.get_schema(number).schema_str))
        rows.append(fastavro.schemaless_reader(io.BytesIO(value[5:]), writers[number], reader)["answers"])
    (questions,) = [field["type"]["fields"] for field in newest["fields"] if field["name"] == "answers"]
    columns = {}
    for question in questions:
        kind = question["type"][1]
        kind = kind["logicalType"] if isinstance(kind, dict) else kind
        column = [row[question["name"]] for row in rows]
        columns[question["name"]] = pandas.Series(column, dtype=TYPES.get(kind, "object"))
    return pandas.DataFrame(columns)


if __name__ == "__main__":
    frame = data_frame(*sys.argv[1:4])
    print(frame.dtypes.to_string())
    print(frame.describe(include="all").to_string())
    if len(sys.argv) > 4:
        frame.to_csv(sys.argv[4], index=False)
