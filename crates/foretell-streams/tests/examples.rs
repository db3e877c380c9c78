//! Runs every example as `cargo run --example` does, and compares what it prints.

#![expect(dead_code, reason = "the examples' `main` prints what their `run` returns")]
#![expect(clippy::duplicate_mod, reason = "each example includes the shared module")]

#[path = "../examples/punctuation.rs"]
mod punctuation;
#[path = "../examples/timestamp_extractor.rs"]
mod timestamp_extractor;
#[path = "../examples/windowed_join.rs"]
mod windowed_join;
#[path = "../examples/word_count/main.rs"]
mod word_count;

#[test]
fn word_count() {
    let counts = word_count::run().unwrap();
    let counts: Vec<_> = counts.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    let once =
        ["brown", "dog", "end", "fox", "jumps", "lazy", "over", "quick"].map(|word| (word, 1));
    assert_eq!(counts, [&once[..], &[("the", 3)]].concat());
}

#[test]
fn windowed_join() {
    let joined = windowed_join::run().unwrap();
    let expected = [
        "ann: saw shoes at 12:00, then clicked at 12:03",
        "ann: saw shoes at 12:00, then clicked at 12:09",
    ];
    assert_eq!(joined, expected);
}

#[test]
fn timestamp_extractor() {
    let lines = timestamp_extractor::run().unwrap();
    let expected = [
        "dead letter \"-1,19\": the sensor's clock is not set",
        "dead letter \"warm\": \"warm\" is not seconds,degrees",
        "roof on day 19723: 21.5",
        "roof on day 19723: 22.5",
        "roof on day 19724: 24",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn punctuation() {
    assert_eq!(punctuation::run().unwrap(), ["bob: a lamp is not paid for"]);
}
