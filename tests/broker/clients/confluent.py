"""A producer and consumer with Confluent's client for Python and its Avro serializers in their default behaviour.

confluent.py write BROKERS REGISTRY TOPIC [SCHEMA]   one record a line of standard input, {"key", "value"}: with the
                                                     newest schema of the topic's subject, or with this file's,
                                                     which the serializer registers
confluent.py read BROKERS REGISTRY TOPIC             prints what the topic has, in the same form
"""

import json
import sys
import time
from datetime import datetime, timezone

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

TIMEOUT_SECONDS = 60


def write(brokers, registry, topic, schema=None):
    client = SchemaRegistryClient({"url": registry})
    if schema:
        with open(schema, encoding="utf-8") as file:
            serializer = AvroSerializer(client, file.read())
    else:
        serializer = AvroSerializer(client, conf={"auto.register.schemas": False, "use.latest.version": True})
    context = SerializationContext(topic, MessageField.VALUE)
    failed = []
    # librdkafka's default partitioner differs from that of Kafka's Java client. An event and its outcome may be written by
    # different clients, and must be in the same partition.
    producer = Producer(
        {"bootstrap.servers": brokers, "partitioner": "murmur2_random", "compression.type": "zstd"}
    )
    for line in sys.stdin:
        record = json.loads(line)
        value = {name: to_datetime(name, answer) for name, answer in record["value"].items()}
        producer.produce(
            topic,
            key=record["key"],
            value=serializer(value, context),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    pending = producer.flush(TIMEOUT_SECONDS)
    if pending or failed:
        sys.exit(f"{pending} not sent, {len(failed)} refused: {failed[:1]}")


def to_datetime(name, answer):
    """Converts milliseconds in fields named *_time to datetime, which the serializer takes for timestamps."""
    return datetime.fromtimestamp(answer / 1000, timezone.utc) if name.endswith("_time") else answer


def to_milliseconds(time):
    return round(time.timestamp() * 1000)


def read(brokers, registry, topic):
    deserializer = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    context = SerializationContext(topic, MessageField.VALUE)
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "unused", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, TIMEOUT_SECONDS).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    unfinished, deadline = set(partitions), time.monotonic() + TIMEOUT_SECONDS
    while unfinished:
        message = consumer.poll(1)
        if message is None:
            if time.monotonic() > deadline:
                sys.exit(f"did not reach the end of partitions {unfinished}")
        elif message.error() is None:
            value = deserializer(message.value(), context)
            print(json.dumps({"key": message.key().decode(), "value": value}, default=to_milliseconds))
        elif message.error().code() == KafkaError._PARTITION_EOF:
            unfinished.discard(message.partition())
        else:
            raise KafkaException(message.error())
    consumer.close()


{"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
