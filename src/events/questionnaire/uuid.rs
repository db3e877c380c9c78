//! UUIDs as 16 bytes and as text.

/// `8-4-4-4-12` hexadecimal digits; nothing for another number of bytes than 16.
pub(super) fn shown(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    Some(text)
}

/// The bytes of such a text, in either case.
pub(super) fn parse(text: &str) -> Option<[u8; 16]> {
    let has_dashes =
        |text: &str| [8, 13, 18, 23].iter().all(|place| text.as_bytes()[*place] == b'-');
    if text.len() != 36 || !text.is_ascii() || !has_dashes(text) {
        return None;
    }
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() == 32)?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
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
}
