//! A message of librdkafka, and the record that is copied from it.

#![expect(unsafe_code, reason = "rdkafka has no type for messages that are taken in batches")]

use std::{
    ffi::{CStr, c_void},
    ptr::{self, NonNull},
    slice,
};

use rdkafka::{
    bindings::{
        rd_kafka_header_get_all, rd_kafka_message_destroy, rd_kafka_message_headers,
        rd_kafka_message_t, rd_kafka_message_timestamp, rd_kafka_resp_err_t,
    },
    types::RDKafkaErrorCode as Code,
};

use foretell_streams::{
    record::{Header, InputRecord, Offset, TopicPartition},
    time::EventTime,
};

/// A message, or an error in place of one.
pub(crate) struct ReceivedMessage(NonNull<rd_kafka_message_t>);

impl ReceivedMessage {
    /// Takes ownership of a message; `None` for a null pointer.
    ///
    /// # Safety
    /// The message must be alive, and owned by nothing else.
    pub(crate) unsafe fn own(native: *mut rd_kafka_message_t) -> Option<Self> {
        NonNull::new(native).map(Self)
    }

    /// The error of the partition, if this is one instead of a record.
    pub(crate) fn error(&self) -> Option<Code> {
        let code = self.native().err;
        (code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
    }

    pub(crate) fn offset(&self) -> Offset {
        Offset(self.native().offset)
    }

    /// Copies the message, which was read from `source`, out of librdkafka's buffer. `headers` are [`Self::headers`], or none
    /// if nobody needs them.
    pub(crate) fn to_record(&self, source: TopicPartition, headers: Vec<Header>) -> InputRecord {
        let native = self.native();
        // SAFETY: the message is alive, and its key and value with it.
        let (key, value) =
            unsafe { (copy(native.key, native.key_len), copy(native.payload, native.len)) };
        InputRecord {
            source,
            offset: self.offset(),
            timestamp: self.timestamp(),
            key,
            value,
            headers,
        }
    }

    /// Timestamp of the message; -1 if it has none, as in Kafka's own clients.
    fn timestamp(&self) -> EventTime {
        // SAFETY: the message is alive; the pointer for the type of the timestamp may be null.
        EventTime(unsafe { rd_kafka_message_timestamp(self.0.as_ptr(), ptr::null_mut()) })
    }

    /// Copies the headers. librdkafka allocates to find out that there are none, so this is a third of the time of consuming
    /// a small record.
    pub(crate) fn headers(&self) -> Vec<Header> {
        let mut all = ptr::null_mut();
        // SAFETY: the message is alive, and its headers with it.
        let code = unsafe { rd_kafka_message_headers(self.0.as_ptr(), &raw mut all) };
        if Code::from(code) != Code::NoError {
            return Vec::new();
        }
        let mut headers = Vec::new();
        loop {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `all` belongs to this message; an index beyond the last header is refused.
            let code = unsafe {
                rd_kafka_header_get_all(
                    all,
                    headers.len(),
                    &raw mut name,
                    &raw mut value,
                    &raw mut length,
                )
            };
            if Code::from(code) != Code::NoError {
                return headers;
            }
            // SAFETY: names end with a NUL; a value has the returned length.
            let (name, value) = unsafe { (CStr::from_ptr(name), copy(value, length)) };
            let name = name.to_string_lossy().into_owned();
            headers.push(Header { name, value: value.unwrap_or_default() });
        }
    }

    fn native(&self) -> &rd_kafka_message_t {
        // SAFETY: `self` owns the message, which is alive until `drop`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for ReceivedMessage {
    fn drop(&mut self) {
        // SAFETY: `self` owns the message, and this is its last use.
        unsafe { rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// Copies bytes; `None` for a null pointer, which differs from an empty slice.
///
/// # Safety
/// `start` must point to `length` bytes, unless it is null.
unsafe fn copy(start: *const c_void, length: usize) -> Option<Vec<u8>> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller guarantees it.
    Some(unsafe { slice::from_raw_parts(start.cast::<u8>(), length) }.to_vec())
}
