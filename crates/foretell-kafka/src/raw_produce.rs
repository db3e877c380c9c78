//! Sends records by handles of their topics. rdkafka sends by name, which costs a copy of the name and a search among all
//! topics for each record.

#![expect(unsafe_code, reason = "rdkafka cannot send by topic handle")]

use std::{
    ffi::{CString, c_void},
    ptr::{self, NonNull},
    time::Duration,
};

use rdkafka::{
    bindings::{
        RD_KAFKA_MSG_F_COPY, rd_kafka_flush, rd_kafka_header_add, rd_kafka_headers_destroy,
        rd_kafka_headers_new, rd_kafka_headers_t, rd_kafka_producev, rd_kafka_resp_err_t,
        rd_kafka_topic_destroy, rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_vtype_t as VType,
    },
    producer::{BaseProducer, Producer, ProducerContext},
    types::RDKafkaErrorCode as Code,
};

use foretell_streams::{
    record::{Header, OutputRecordRef, Topic},
    time::EventTime,
};

/// Handles of the topics that a producer has written to. They must be dropped before the producer.
#[derive(Default)]
pub(crate) struct TopicHandles {
    /// In the order in which they were made. They are few, and a topic is found by the address of its name.
    known: Vec<(Topic, Handle)>,
}

struct Handle(NonNull<rd_kafka_topic_t>);

// SAFETY: librdkafka's topic handles are not bound to a thread, and locked by it.
unsafe impl Send for Handle {}

impl TopicHandles {
    /// Adds `record` to the producer's queue; its bytes are copied. Delivery reports have no opaque.
    ///
    /// # Errors
    /// librdkafka's code, such as [`Code::QueueFull`]; the record was not queued.
    pub(crate) fn send<C: ProducerContext<DeliveryOpaque = ()>>(
        &mut self,
        producer: &BaseProducer<C>,
        record: OutputRecordRef<'_>,
    ) -> Result<(), Code> {
        let known = self.known.iter().position(|(topic, _)| topic == record.topic);
        let index = match known {
            Some(index) => index,
            None => {
                self.known.push((record.topic.clone(), Handle::new(producer, record.topic)?));
                self.known.len() - 1
            }
        };
        let (_, topic) = &self.known[index];
        let headers = Headers::new(record.headers)?;
        let (key, key_bytes) = parts(record.key);
        let (value, value_bytes) = parts(record.value);
        // SAFETY: producer, topic, key, value and headers are alive; each tag is followed by its arguments, and the flag makes
        // librdkafka copy the bytes.
        let code = unsafe {
            rd_kafka_producev(
                producer.client().native_ptr(),
                VType::RD_KAFKA_VTYPE_RKT,
                topic.0.as_ptr(),
                VType::RD_KAFKA_VTYPE_PARTITION,
                record.partition.map_or(-1, |partition| partition.0),
                VType::RD_KAFKA_VTYPE_MSGFLAGS,
                RD_KAFKA_MSG_F_COPY,
                VType::RD_KAFKA_VTYPE_VALUE,
                value,
                value_bytes,
                VType::RD_KAFKA_VTYPE_KEY,
                key,
                key_bytes,
                VType::RD_KAFKA_VTYPE_OPAQUE,
                ptr::null_mut::<c_void>(),
                VType::RD_KAFKA_VTYPE_TIMESTAMP,
                native_timestamp(record.timestamp),
                VType::RD_KAFKA_VTYPE_HEADERS,
                headers.0,
                VType::RD_KAFKA_VTYPE_END,
            )
        };
        result(code)?;
        headers.release();
        Ok(())
    }
}

/// Sends records that wait for others (`linger.ms`) at once, and waits for acknowledgements, `at_most` so long.
pub(crate) fn flush_for<C: ProducerContext>(producer: &BaseProducer<C>, at_most: Duration) {
    let millis = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive while borrowed. The call serves no delivery reports, which are events here; the caller
    // checks whether records remain.
    unsafe { rd_kafka_flush(producer.client().native_ptr(), millis) };
}

impl Handle {
    fn new<C: ProducerContext>(producer: &BaseProducer<C>, topic: &Topic) -> Result<Self, Code> {
        let name = CString::new(topic.as_str()).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: the client is alive; the name ends with a NUL and is copied; without a configuration the client's is used.
        let native = unsafe {
            rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut())
        };
        NonNull::new(native).map(Self).ok_or(Code::InvalidTopic)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `self` owns the handle, and this is its last use; the client is alive.
        unsafe { rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A record's headers until librdkafka owns them; null if there are none.
struct Headers(*mut rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[Header]) -> Result<Self, Code> {
        if headers.is_empty() {
            return Ok(Self(ptr::null_mut()));
        }
        // SAFETY: the call has no requirements.
        let all = Self(unsafe { rd_kafka_headers_new(headers.len()) });
        for Header { name, value } in headers {
            let (value, value_bytes) = parts(Some(value));
            // SAFETY: the headers are alive; name and value have the given lengths and are copied.
            let code = unsafe {
                rd_kafka_header_add(
                    all.0,
                    name.as_ptr().cast(),
                    name.len().cast_signed(),
                    value,
                    value_bytes.cast_signed(),
                )
            };
            result(code)?;
        }
        Ok(all)
    }

    /// Gives up ownership, after librdkafka has taken it.
    fn release(mut self) {
        self.0 = ptr::null_mut();
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: librdkafka has not taken ownership, so `self` has it.
            unsafe { rd_kafka_headers_destroy(self.0) }
        }
    }
}

fn result(code: rd_kafka_resp_err_t) -> Result<(), Code> {
    let code = Code::from(code);
    if code == Code::NoError { Ok(()) } else { Err(code) }
}

/// Pointer and length of bytes; a null pointer for `None`, which differs from an empty slice.
fn parts(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// The timestamp for librdkafka, at least 1: it takes 0 for "now", and Kafka has no times before 1970.
fn native_timestamp(EventTime(millis): EventTime) -> i64 {
    millis.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_never_0_which_means_now() {
        for (millis, expected) in [(-5, 1), (0, 1), (1, 1), (1_700_000_000_000, 1_700_000_000_000)]
        {
            assert_eq!(native_timestamp(EventTime(millis)), expected);
        }
    }
}
