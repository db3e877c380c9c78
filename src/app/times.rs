//! Times on the command line.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use humantime_serde::re::humantime;

use foretell_streams::time::{Clock, EventTime};

/// Parses `beginning`, which is none, a time such as `2026-11-01T12:00:00Z`, or a span before `now` such as `7d`.
///
/// # Errors
/// If it is none of these; the message says what to write.
pub fn parse(text: &str, now: EventTime) -> anyhow::Result<Option<EventTime>> {
    if text == "beginning" {
        return Ok(None);
    }
    if let Ok(span) = humantime::parse_duration(text) {
        return Ok(Some(now - span));
    }
    let time: SystemTime = humantime::parse_rfc3339(text).ok().with_context(|| {
        format!(
            "{text:?} is no time: write `beginning`, a time such as 2026-11-01T12:00:00Z, or a span before now such as 7d"
        )
    })?;
    let since = time.duration_since(UNIX_EPOCH).context("it is before 1970")?;
    Ok(Some(EventTime(i64::try_from(since.as_millis())?)))
}

/// As [`parse`], with spans before the time of `clock`.
///
/// # Errors
/// As for [`parse`].
pub fn since(text: &str, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<EventTime>> {
    parse(text, EventTime(clock.now().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let now = EventTime(1_800_000_000_000);
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse(text, now).unwrap(), expected.map(EventTime), "{text}");
        };
        check("beginning", None);
        check("7d", Some(1_800_000_000_000 - 7 * 86_400_000));
        check("2020-01-01T00:00:00Z", Some(1_577_836_800_000));
        check("2020-01-01T00:00:00.250Z", Some(1_577_836_800_250));
        for text in ["", "yesterday", "2020-13-01T00:00:00Z", "1600000000000"] {
            let error = parse(text, now).unwrap_err().to_string();
            assert!(error.contains("is no time: write `beginning`"), "{text}: {error}");
        }
    }
}
