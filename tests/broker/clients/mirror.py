"""Copies all topics of an application to topics with another prefix, as a mirror of a cluster would: committed records, with their
keys, headers, timestamps and partitions. Their offsets become others.

mirror.py BROKERS FROM_PREFIX TO_PREFIX [GROUP...]    with groups (without the prefix), their offsets are translated
"""

import sys

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

SETTINGS = ["cleanup.policy", "retention.ms", "max.message.bytes", "message.timestamp.type"]
BYTES_MAX = 20_000_000
ANSWER_SECONDS = 60


def create(admin, topics, renamed):
    wanted = []
    for topic, partitions in topics.items():
        described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
        config = next(iter(described.values())).result()
        kept = {name: config[name].value for name in SETTINGS}
        wanted.append(NewTopic(renamed(topic), partitions, 1, config=kept))
    for created in admin.create_topics(wanted).values():
        created.result()


def copy(consumer, producer, sources, renamed):
    """Copies partitions, and returns the offsets of the records of each."""
    offsets = {(source.topic, source.partition): [] for source in sources}
    consumer.assign(sources)
    unread = len(sources)
    while unread:
        record = consumer.poll(ANSWER_SECONDS)
        if record is None:
            sys.exit(f"no answer about {unread} partitions")
        if record.error() and record.error().code() == KafkaError._PARTITION_EOF:
            unread -= 1  # nobody writes, so an end is reported once
            continue
        if record.error():
            sys.exit(str(record.error()))
        offsets[record.topic(), record.partition()].append(record.offset())
        place = {"partition": record.partition(), "timestamp": record.timestamp()[1]}
        producer.produce(renamed(record.topic()), record.value(), record.key(), headers=record.headers(), **place)
        producer.poll(0)
    return offsets


def translate(admin, group, to_group, copied, renamed):
    answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    committed = [one for one in next(iter(answer.values())).result().topic_partitions if one.offset >= 0]
    translated = []
    for one in committed:
        before = [offset for offset in copied[one.topic, one.partition] if offset < one.offset]
        translated.append(TopicPartition(renamed(one.topic), one.partition, len(before)))
    changed = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(to_group, translated)])
    next(iter(changed.values())).result()


def main(brokers, from_prefix, to_prefix, *groups):
    def renamed(topic):
        return to_prefix + topic.removeprefix(from_prefix)

    server = {"bootstrap.servers": brokers}
    admin = AdminClient(server)
    found = admin.list_topics(timeout=ANSWER_SECONDS).topics
    topics = {name: len(topic.partitions) for name, topic in found.items() if name.startswith(from_prefix)}
    create(admin, topics, renamed)
    reading = {"group.id": f"{to_prefix}mirror", "isolation.level": "read_committed", "enable.partition.eof": True}
    reading |= {"auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.message.max.bytes": BYTES_MAX}
    consumer, producer = Consumer(server | reading), Producer(server | {"message.max.bytes": BYTES_MAX})
    sources = [TopicPartition(topic, number, 0) for topic, count in topics.items() for number in range(count)]
    copied = copy(consumer, producer, sources, renamed)
    consumer.close()
    producer.flush()
    for group in groups:
        translate(admin, from_prefix + group, to_prefix + group, copied, renamed)
    print(sum(len(offsets) for offsets in copied.values()), "records of", len(topics), "topics")


if __name__ == "__main__":
    main(*sys.argv[1:])
