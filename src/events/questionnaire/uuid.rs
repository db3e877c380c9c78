//! UUIDs (RFC 9562) as 16 bytes and as text, and new UUIDs from a name (version 5) or from a time and a unique name (version 7).

use sha2::{Digest as _, Sha256};

/// A description of the valid texts.
pub(super) const WANTED: &str = "a UUID, such as 0190c4d2-7f3a-7cde-8f01-23456789abcd";

/// The namespace of UUIDs from names. It must never change.
const NAMESPACE: [u8; 16] = [
    0x6b, 0x1f, 0x0e, 0x52, 0x9d, 0x34, 0x4c, 0x8a, 0xb7, 0x21, 0x5e, 0x90, 0xc3, 0x7d, 0x48, 0x16,
];

/// The UUID of `name`, always the same.
pub(in crate::events) fn of_name(name: &str) -> String {
    version_5(NAMESPACE, name)
}

/// A new UUID from the milliseconds since 1970 and a unique `name`.
pub(in crate::events) fn of_time(millis: i64, name: &str) -> String {
    let mut bytes = first_16(&Sha256::digest(name.as_bytes()));
    bytes[..6].copy_from_slice(&millis.max(0).to_be_bytes()[2..]);
    with_version(bytes, 7)
}

fn version_5(namespace: [u8; 16], name: &str) -> String {
    let digest = sha1(&[&namespace, name.as_bytes()].concat());
    with_version(first_16(&digest), 5)
}

fn first_16(digest: &[u8]) -> [u8; 16] {
    *digest.first_chunk().expect("a digest has 20 bytes or more")
}

fn with_version(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    text_of(&bytes)
}

/// SHA-1 (RFC 3174), which version 5 requires. It is not used for security.
fn sha1(message: &[u8]) -> [u8; 20] {
    let bits = u64::try_from(message.len()).unwrap_or(u64::MAX) * 8;
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&bits.to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for index in 16..80 {
            let mixed = words[index - 3] ^ words[index - 8] ^ words[index - 14] ^ words[index - 16];
            words[index] = mixed.rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (round, word) in words.iter().enumerate() {
            let (mixed, constant) = match round / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e);
            let next = next.wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Memory for the text of a UUID.
pub(super) type Buffer = [u8; 36];

/// The text of a UUID; none if there are not 16 bytes.
pub(super) fn shown(bytes: &[u8]) -> Option<String> {
    bytes.try_into().ok().map(text_of)
}

fn text_of(bytes: &[u8; 16]) -> String {
    write(bytes, &mut [0; 36]).to_owned()
}

/// Writes the text of a UUID into `buffer`.
pub(super) fn write<'b>(bytes: &[u8; 16], buffer: &'b mut Buffer) -> &'b str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut place = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            buffer[place] = b'-';
            place += 1;
        }
        buffer[place] = DIGITS[usize::from(byte >> 4)];
        buffer[place + 1] = DIGITS[usize::from(byte & 0xf)];
        place += 2;
    }
    std::str::from_utf8(buffer).expect("digits and dashes are ASCII")
}

/// The bytes of a UUID's text, in upper or lower case.
pub(super) fn parse(text: &str) -> Option<[u8; 16]> {
    let has_dashes =
        |text: &str| [8, 13, 18, 23].iter().all(|place| text.as_bytes()[*place] == b'-');
    if text.len() != 36 || !text.is_ascii() || !has_dashes(text) {
        return None;
    }
    let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    let mut digit = || u8::try_from(digits.next()??).ok();
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = digit()? << 4 | digit()?;
    }
    // More dashes than the four would leave too few digits; fewer were refused above.
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_convert_to_each_other() {
        let text = "0123abcd-4567-89ef-0123-456789abcdef";
        assert_eq!(parse(text).and_then(|bytes| shown(&bytes)).as_deref(), Some(text));
        assert_eq!(parse(&text.to_uppercase()), parse(text));
        for wrong in
            ["", "0123abcd-4567-89ef-0123-456789abcdeg", "0123abcd4567-89ef-0123-456789abcdef0"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(shown(&[1, 2, 3]), None);
    }

    #[test]
    fn a_name_always_has_the_same_uuid() {
        // RFC 9562, appendix A.4: `www.example.com` in the namespace of DNS.
        let dns = parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap();
        assert_eq!(version_5(dns, "www.example.com"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
        assert_eq!(of_name("a"), of_name("a"));
        assert_ne!(of_name("a"), of_name("b"));
        assert_eq!(parse(&of_name("a")).and_then(|bytes| shown(&bytes)), Some(of_name("a")));
    }

    #[test]
    fn a_uuid_of_a_time_is_in_order_and_of_version_7() {
        // RFC 9562, appendix A.6 has this time: 017f22e2-79b0-7….
        let made = of_time(1_645_557_742_000, "x-1");
        assert!(made.starts_with("017f22e2-79b0-7"), "{made}");
        assert!(["8", "9", "a", "b"].contains(&&made[19..20]), "{made}");
        assert!(of_time(1_645_557_742_001, "x-1") > made);
        assert_ne!(of_time(1_645_557_742_000, "x-2"), made);
        assert!(parse(&of_time(i64::MIN, "x")).is_some());
    }
}
