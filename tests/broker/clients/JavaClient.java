// A producer and consumer with Apache Avro for Java and Kafka's Java client. Confluent's serializer is not on Maven Central,
// so this program writes the five bytes of the wire format and calls the registry itself.
//
// JavaClient register REGISTRY TOPIC SCHEMA        registers a schema under the topic's subject
// JavaClient write BROKERS REGISTRY TOPIC SCHEMA   one record a line of standard input, {"key", "value"}, with that schema
// JavaClient read BROKERS REGISTRY TOPIC           prints what the topic has, in the same form

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.avro.Conversions;
import org.apache.avro.Schema;
import org.apache.avro.data.TimeConversions;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

final class JavaClient {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final ObjectMapper JSON = new ObjectMapper();
  /** The smallest block size: longer arrays and maps are written in several blocks, each with its size in bytes. */
  private static final EncoderFactory IN_BLOCKS = new EncoderFactory().configureBlockSize(64);

  public static void main(String[] args) throws Exception {
    switch (args[0]) {
      case "register" -> new Registry(args[1]).register(args[2], Files.readString(Path.of(args[3])));
      case "write" -> write(args[1], new Registry(args[2]), args[3], Files.readString(Path.of(args[4])));
      case "read" -> read(args[1], new Registry(args[2]), args[3]);
      default -> throw new IllegalArgumentException(args[0]);
    }
  }

  private static void write(String brokers, Registry registry, String topic, String text) throws Exception {
    int id = registry.lookUp(topic, text);
    Schema schema = new Schema.Parser().parse(text);
    Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "compression.type", "lz4");
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        JsonNode record = JSON.readTree(line);
        byte[] value = framed(id, schema, datum(schema, record.get("value")));
        sent.add(producer.send(new ProducerRecord<>(topic, record.get("key").asText(), value)));
      }
      for (Future<RecordMetadata> one : sent) {
        one.get();
      }
    }
  }

  private static byte[] framed(int id, Schema schema, Object datum) throws IOException {
    ByteArrayOutputStream inBlocks = new ByteArrayOutputStream();
    ByteArrayOutputStream whole = new ByteArrayOutputStream();
    encode(schema, datum, IN_BLOCKS.blockingBinaryEncoder(inBlocks, null));
    encode(schema, datum, EncoderFactory.get().binaryEncoder(whole, null));
    if (Arrays.equals(inBlocks.toByteArray(), whole.toByteArray())) {
      throw new IllegalStateException("no array or map is long enough for several blocks");
    }
    return ByteBuffer.allocate(5 + inBlocks.size()).put((byte) 0).putInt(id).put(inBlocks.toByteArray()).array();
  }

  private static void encode(Schema schema, Object datum, BinaryEncoder encoder) throws IOException {
    new GenericDatumWriter<>(schema, withJavaTypes()).write(datum, encoder);
    encoder.flush();
  }

  /** Maps timestamps to Instant and decimals to BigDecimal. */
  private static GenericData withJavaTypes() {
    GenericData data = new GenericData();
    data.addLogicalTypeConversion(new TimeConversions.TimestampMillisConversion());
    data.addLogicalTypeConversion(new Conversions.DecimalConversion());
    return data;
  }

  private static Object datum(Schema schema, JsonNode json) {
    return switch (schema.getType()) {
      case RECORD -> {
        GenericData.Record record = new GenericData.Record(schema);
        schema.getFields().forEach(field -> record.put(field.pos(), datum(field.schema(), json.path(field.name()))));
        yield record;
      }
      case UNION -> {
        boolean isNull = json.isNull() || json.isMissingNode();
        var fits = schema.getTypes().stream().filter(type -> isNull == (type.getType() == Schema.Type.NULL));
        yield datum(fits.findFirst().orElseThrow(), json);
      }
      case ARRAY -> {
        GenericData.Array<Object> items = new GenericData.Array<>(json.size(), schema);
        json.forEach(item -> items.add(datum(schema.getElementType(), item)));
        yield items;
      }
      case MAP -> {
        Map<String, Object> entries = new HashMap<>();
        json.fields().forEachRemaining(entry -> entries.put(entry.getKey(), datum(schema.getValueType(), entry.getValue())));
        yield entries;
      }
      case ENUM -> new GenericData.EnumSymbol(schema, json.asText());
      case STRING -> json.asText();
      case INT -> json.asInt();
      case LONG -> schema.getLogicalType() == null ? json.asLong() : Instant.ofEpochMilli(json.asLong());
      case BYTES -> new BigDecimal(json.asText());
      case BOOLEAN -> json.asBoolean();
      case NULL -> null;
      default -> throw new IllegalArgumentException(schema.toString());
    };
  }

  private static void read(String brokers, Registry registry, String topic) throws Exception {
    Map<String, Object> settings = Map.of(
        "bootstrap.servers", brokers, "isolation.level", "read_committed", "auto.offset.reset", "earliest");
    Map<Integer, Schema> schemas = new HashMap<>();
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
      List<TopicPartition> partitions = new ArrayList<>();
      consumer.partitionsFor(topic, TIMEOUT).forEach(part -> partitions.add(new TopicPartition(topic, part.partition())));
      consumer.assign(partitions);
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions, TIMEOUT);
      long deadline = System.nanoTime() + TIMEOUT.toNanos();
      while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
        if (System.nanoTime() > deadline) {
          throw new IllegalStateException("did not reach the ends " + ends);
        }
        for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
          ByteBuffer bytes = ByteBuffer.wrap(record.value());
          if (bytes.get() != 0) {
            throw new IllegalStateException("not in Confluent's wire format");
          }
          int id = bytes.getInt();
          if (!schemas.containsKey(id)) {
            schemas.put(id, registry.schema(id));
          }
          BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(bytes.array(), 5, bytes.remaining(), null);
          Object value = new GenericDatumReader<>(schemas.get(id)).read(null, decoder);
          if (!decoder.isEnd()) {
            throw new IllegalStateException("bytes after the value");
          }
          System.out.println("{\"key\": " + JSON.writeValueAsString(record.key()) + ", \"value\": " + value + "}");
        }
      }
    }
  }

  /** A registry with Confluent's HTTP API. */
  private record Registry(String url) {
    private static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(TIMEOUT).build();

    void register(String topic, String schema) throws Exception {
      ask("/subjects/" + topic + "-value/versions", schema);
    }

    int lookUp(String topic, String schema) throws Exception {
      return ask("/subjects/" + topic + "-value", schema).get("id").asInt();
    }

    Schema schema(int id) throws Exception {
      return new Schema.Parser().parse(ask("/schemas/ids/" + id, null).get("schema").asText());
    }

    private JsonNode ask(String path, String schema) throws Exception {
      HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + path)).timeout(TIMEOUT);
      if (schema != null) {
        String body = JSON.writeValueAsString(Map.of("schema", schema));
        request.header("Content-Type", "application/vnd.schemaregistry.v1+json").POST(HttpRequest.BodyPublishers.ofString(body));
      }
      HttpResponse<String> answer = HTTP.send(request.build(), HttpResponse.BodyHandlers.ofString());
      if (answer.statusCode() != 200) {
        throw new IOException(path + ": " + answer.statusCode() + " " + answer.body());
      }
      return JSON.readTree(answer.body());
    }
  }
}
