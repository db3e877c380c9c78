//! A dead letter as people look at it.

use serde_json::{Value as Json, json};

use crate::processors::dead_letters::{Decode, Letter};
use foretell_streams::record::Header;

/// Maximum number of bytes of a value that is shown as it is.
const SHOWN_BYTES_MAX: usize = 4096;

/// A letter as JSON, its value decoded by its own schema if that is possible.
pub(super) fn shown(letter: &Letter, is_replayed: bool, decode: &Decode) -> Json {
    let headers = |headers: &[Header]| -> Vec<Json> {
        let shown = headers.iter().map(|header| json!([header.name, text(&header.value)]));
        shown.collect()
    };
    let described = &letter.described;
    let mut shown = json!({
        "id": letter.id,
        "written_at": letter.written_at,
        "replayed": is_replayed,
        "class": described.class,
        "message": described.message,
        "topic": described.topic,
        "partition": described.partition,
        "offset": described.offset,
        "timestamp": described.timestamp,
        "schema_id": letter.schema_id(),
        "key": letter.key.as_deref().map(text),
        "headers": headers(&letter.headers),
    });
    if let Some(bytes) = described.left_out {
        shown["value_left_out_bytes"] = json!(bytes);
    }
    if let Some(value) = &letter.value {
        shown["value_bytes"] = json!(value.len());
        match decode(value) {
            Ok(json) => shown["value"] = json,
            Err(error) => {
                shown["value_error"] = json!(error);
                shown["value_raw"] = json!(text(value));
            }
        }
    }
    shown
}

/// Bytes as text, with escapes for what is not printable.
fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let mut text = match std::str::from_utf8(shown) {
        Ok(text) if !text.chars().any(|char| char.is_control() && char != '\n') => text.to_owned(),
        Ok(_) | Err(_) => shown.escape_ascii().to_string(),
    };
    if shown.len() < bytes.len() {
        text.push('…');
    }
    text
}
