//! Hands records to librdkafka, by handles of their topics. By name, as rdkafka does it, each record costs a copy of
//! the name and a search among all topics.

#![expect(unsafe_code, reason = "rdkafka names topics anew for each record")]

use std::{
    collections::BTreeMap,
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

/// The topics that a producer has written to. It must be dropped before that.
#[derive(Default)]
pub(crate) struct TopicHandles {
    known: BTreeMap<Topic, Handle>,
}

struct Handle(NonNull<rd_kafka_topic_t>);

// SAFETY: librdkafka locks what is behind it, whichever thread uses it; it belongs to no thread.
unsafe impl Send for Handle {}

impl TopicHandles {
    /// Hands `record` over, whose bytes are copied. Reports of its delivery come with no opaque of ours.
    ///
    /// # Errors
    /// librdkafka's, such as [`Code::QueueFull`]; then it was not taken.
    pub(crate) fn send<C: ProducerContext<DeliveryOpaque = ()>>(
        &mut self,
        producer: &BaseProducer<C>,
        record: OutputRecordRef<'_>,
    ) -> Result<(), Code> {
        let topic = match self.known.get(record.topic) {
            Some(known) => known,
            None => {
                let handle = Handle::new(producer, record.topic)?;
                self.known.entry(record.topic.clone()).or_insert(handle)
            }
        };
        let headers = Headers::new(record.headers)?;
        let (key, key_bytes) = parts(record.key);
        let (value, value_bytes) = parts(record.value);
        // SAFETY: producer, topic, key, value and headers are alive; each tag is followed by what it stands for, and the
        // flag says that the bytes are to be copied.
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
        headers.are_taken();
        Ok(())
    }
}

/// Sends what waits for company (`linger.ms`) now, and waits until all is acknowledged, `at_most` so long.
pub(crate) fn hurry<C: ProducerContext>(producer: &BaseProducer<C>, at_most: Duration) {
    let millis = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive while borrowed. It serves no reports, since they come as events; that some are left
    // is for the caller to see.
    unsafe { rd_kafka_flush(producer.client().native_ptr(), millis) };
}

impl Handle {
    fn new<C: ProducerContext>(producer: &BaseProducer<C>, topic: &Topic) -> Result<Self, Code> {
        let name = CString::new(topic.as_str()).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: the client is alive, the name ends with a zero and is copied; no settings are the client's own.
        let native = unsafe {
            rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut())
        };
        NonNull::new(native).map(Self).ok_or(Code::InvalidTopic)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is ours, and this is the last time that it is used; the client is alive.
        unsafe { rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A record's headers until librdkafka has taken them; null for none.
struct Headers(*mut rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[Header]) -> Result<Self, Code> {
        if headers.is_empty() {
            return Ok(Self(ptr::null_mut()));
        }
        // SAFETY: it asks for nothing.
        let all = Self(unsafe { rd_kafka_headers_new(headers.len()) });
        for Header { name, value } in headers {
            let (value, value_bytes) = parts(Some(value));
            // SAFETY: the headers are alive, and name and value are as long as told, and copied.
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

    fn are_taken(mut self) {
        self.0 = ptr::null_mut();
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: librdkafka has not taken them, so they are ours.
            unsafe { rd_kafka_headers_destroy(self.0) }
        }
    }
}

fn result(code: rd_kafka_resp_err_t) -> Result<(), Code> {
    let code = Code::from(code);
    if code == Code::NoError { Ok(()) } else { Err(code) }
}

/// Nothing, or where it is and how long; that is not the same as nothing in it.
fn parts(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

/// librdkafka takes 0 for "now", and Kafka knows nothing before 1970.
fn native_timestamp(EventTime(millis): EventTime) -> i64 {
    millis.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timestamp_means_now_to_librdkafka_so_there_is_always_one() {
        for (ours, expected) in [(-5, 1), (0, 1), (1, 1), (1_700_000_000_000, 1_700_000_000_000)] {
            assert_eq!(native_timestamp(EventTime(ours)), expected);
        }
    }
}
