//! Confluent's wire format: a zero byte, the id of the writer schema in four bytes (big-endian), then the Avro datum
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).

/// The first byte of every frame.
pub const MAGIC: u8 = 0;

/// Number of bytes before the datum: the magic byte and the id.
pub const HEADER_BYTES: usize = 1 + size_of::<u32>();

/// Reasons why bytes are not in the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Fewer bytes than the header.
    #[error("{bytes} bytes, where the header alone has {HEADER_BYTES}")]
    TooShort {
        /// Number of bytes.
        bytes: usize,
    },
    /// Another first byte: the record was probably written without a registry.
    #[error("the first byte is {found:#04x}, where the wire format has 0x00")]
    NoMagic {
        /// The first byte.
        found: u8,
    },
}

/// Appends the header, after which the datum must be appended.
pub fn frame(schema_id: u32, bytes: &mut Vec<u8>) {
    bytes.push(MAGIC);
    bytes.extend_from_slice(&schema_id.to_be_bytes());
}

/// Splits a frame into the id of its writer schema and the datum.
///
/// # Errors
/// [`FramingError`] if `bytes` are not in the wire format.
pub fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), FramingError> {
    let Some((header, datum)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(FramingError::TooShort { bytes: bytes.len() });
    };
    let [magic, id @ ..] = *header;
    if magic != MAGIC {
        return Err(FramingError::NoMagic { found: magic });
    }
    Ok((u32::from_be_bytes(id), datum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: Result<(u32, &[u8]), FramingError>) {
        assert_eq!(unframe(bytes), expected, "{bytes:?}");
    }

    #[test]
    fn frames_are_split() {
        check(&[], Err(FramingError::TooShort { bytes: 0 }));
        check(&[0, 0, 0, 1], Err(FramingError::TooShort { bytes: 4 }));
        check(&[1, 0, 0, 0, 1, 7], Err(FramingError::NoMagic { found: 1 }));
        check(b"{\"a\":1}", Err(FramingError::NoMagic { found: b'{' }));
        check(&[0, 0, 0, 0, 1], Ok((1, &[])));
        check(&[0, 0xde, 0xad, 0xbe, 0xef, 7, 8], Ok((0xdead_beef, &[7, 8])));
    }

    proptest! {
        #[test]
        fn frames_survive_a_round_trip(id: u32, datum: Vec<u8>) {
            let mut bytes = Vec::new();
            frame(id, &mut bytes);
            bytes.extend_from_slice(&datum);
            prop_assert_eq!(unframe(&bytes), Ok((id, datum.as_slice())));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_framed_again(bytes: Vec<u8>) {
            if let Ok((id, datum)) = unframe(&bytes) {
                let mut again = Vec::new();
                frame(id, &mut again);
                again.extend_from_slice(datum);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
