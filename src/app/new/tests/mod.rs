//! Tests of whole files: what is assumed, what is written, what is refused.

use std::{collections::BTreeSet, fs};

use serde_json::{Value as Json, json};

use super::*;
use crate::config::Config;

mod any_file;
mod columns;

/// A folder with a file, from which an application is made.
struct Made {
    folder: tempfile::TempDir,
    request: Request,
}

impl Made {
    fn from(bytes: impl AsRef<[u8]>, label: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.csv");
        fs::write(&file, bytes).unwrap();
        let request = Request {
            file,
            folder: folder.path().join("made"),
            label: Some(label.to_owned()).filter(|label| !label.is_empty()),
            ..Request::default()
        };
        Self { folder, request }
    }

    fn with(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(&mut self.request);
        self
    }

    fn make(&self) -> anyhow::Result<Report> {
        new(&self.request, &mut |_, _, _| Ok(()))
    }

    fn report(&self) -> Report {
        self.make().unwrap()
    }

    fn refused(&self) -> String {
        let error = format!("{:#}", self.make().unwrap_err());
        assert!(!self.request.folder.exists(), "nothing is written: {error}");
        error
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.request.folder.join(name)).unwrap()
    }

    /// The cells of both tables, without the header.
    fn rows(&self) -> Vec<Vec<String>> {
        let tables = [INITIAL, PLAY].map(|name| self.text(name));
        let rows = tables.iter().flat_map(|text| {
            let reader = csv::Reader::from_reader(text.as_bytes());
            reader.into_records().collect::<Vec<_>>()
        });
        rows.map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    }
}

/// A file of 40 rows with the columns `x`, one more, and `out`.
fn file(name: &str, cell: impl Fn(usize) -> String) -> String {
    let rows = (0..40).map(|row| {
        let label = if row * 7 % 10 < 4 { "yes" } else { "no" };
        format!("{},{},{label}\n", row * row % 17, cell(row))
    });
    format!("x,{name},out\n{}", rows.collect::<String>())
}

fn role(report: &Report, name: &str) -> (&'static str, &'static str) {
    let column = report.columns.iter().find(|column| column.name == name).unwrap();
    (column.kind, column.role)
}

#[test]
fn roles_of_columns() {
    let check = |name: &str, cell: &dyn Fn(usize) -> String, expected: (&str, &str)| {
        let report = Made::from(file(name, cell), "out").report();
        assert_eq!(role(&report, name), expected, "{name}");
    };
    let code = |row: usize| format!("k{}", row * 37);
    check("visit_id", &code, ("text", "respondent id"));
    check("PassengerId", &|row| (row * 3 + 100).to_string(), ("whole number", "respondent id"));
    check("code", &code, ("text", "respondent id"));
    check("shop_id", &|row| (row % 3).to_string(), ("whole number", "not used"));
    check("n", &|row| (row + 1).to_string(), ("whole number", "not used"));
    check("salary", &|row| (row * 31 % 41 + 1000).to_string(), ("whole number", "answer"));
    check("color", &|row| ["red", "blue"][row % 2].to_owned(), ("category", "answer"));
    check("same", &|_| "1".to_owned(), ("whole number", "not used"));
    check("gone", &|_| "NA".to_owned(), ("-", "not used"));
    check("note", &|row| format!("\"wrote, on day {row}, a letter\""), ("category", "not used"));
    check("at", &|row| format!("2026-05-{:02} 10:00", row % 28 + 1), ("time", "event time"));
    check("birthday", &|row| format!("1980-05-{:02}", row % 28 + 1), ("date", "answer"));
    check("member", &|row| ["t", "f"][row % 2].to_owned(), ("boolean", "answer"));
}

#[test]
fn the_user_says_what_columns_are() {
    let text = file("visit_id", |row| format!("k{}", row % 9));
    let made = Made::from(&text, "out").with(|request| {
        request.respondent_id = Some("visit_id".to_owned());
    });
    assert_eq!(role(&made.report(), "visit_id"), ("text", "respondent id"));
    let made = Made::from(&text, "out").with(|request| {
        request.used = vec!["Visit_ID".to_owned()];
    });
    assert_eq!(role(&made.report(), "visit_id"), ("category", "answer"));
    let made = Made::from(&text, "out").with(|request| {
        (request.ignored, request.used) = (vec!["x".to_owned()], vec!["visit_id".to_owned()]);
    });
    assert_eq!(role(&made.report(), "x"), ("whole number", "not used"));
    let made = Made::from(&text, "out").with(|request| {
        request.event_time = Some("x".to_owned());
    });
    assert!(made.refused().contains("no dates or times"), "{}", made.refused());
    let made = Made::from(&text, "out").with(|request| {
        request.ignored = vec!["out".to_owned()];
    });
    assert!(made.refused().contains("named by two options"), "{}", made.refused());
}

#[test]
fn rows_that_cannot_be_used_are_left_out_and_counted() {
    let rows = (0..50).map(|row| {
        let label = ["yes", "no", "no", "", "Yes "][row % 5];
        let who = if row == 7 { String::new() } else { format!("c{}", row % 11) };
        let at = if row == 12 { String::new() } else { format!("{}/05/2026", row % 28 + 1) };
        format!("{who};{at};{},5;{label}\n", row % 6)
    });
    let text = format!("who;at;x;out\n{}", rows.collect::<String>());
    let made = Made::from(text, "out").with(|request| {
        request.respondent_id = Some("who".to_owned());
        request.event_time = Some("at".to_owned());
    });
    let report = made.report();
    assert_eq!(report.rows, 50);
    assert_eq!((report.rows_without_label, report.rows_without_respondent), (10, 1));
    assert_eq!(report.rows_without_event_time, 1);
    assert_eq!(report.rows_initial + report.rows_played, 38);
    assert_eq!(report.split, SplitRule::EventTime);
    let labels: Vec<&str> = report.labels.iter().map(|class| class.label.as_str()).collect();
    assert_eq!(labels, ["no", "Yes"]);
    let lines = report.lines().join("\n");
    assert!(lines.contains("10 rows without a label are left out"), "{lines}");
    assert!(lines.contains("label \"Yes\" is also spelled \"yes\""), "{lines}");
    let rows = made.rows();
    assert!(rows.iter().all(|row| row[1].starts_with("2026-05-") && row[2].ends_with(".5")));
}

#[test]
fn columns_that_tell_the_label_are_reported() {
    let check = |cell: &dyn Fn(usize) -> String, is_leak: bool| {
        let report = Made::from(file("z", cell), "out").report();
        let warned =
            report.warnings.iter().any(|warning| warning.contains("\"z\" tells the label"));
        assert_eq!(warned, is_leak, "{:?}", report.warnings);
    };
    let is_yes = |row: usize| row * 7 % 10 < 4;
    check(&|row| (if is_yes(row) { "alive" } else { "dead" }).to_owned(), true);
    check(&|row| (if is_yes(row) { row + 100 } else { row }).to_string(), true);
    check(&|row| if is_yes(row) { format!("boat {}", row % 3) } else { String::new() }, true);
    check(&|row| (row % 5).to_string(), false);
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_do() {
    let check = |bytes: &[u8], label: &str, words: &[&str]| {
        let error = Made::from(bytes, label).refused();
        for word in words {
            assert!(error.contains(word), "{word:?} in {error}");
        }
    };
    let table = file("y", |row| row.to_string());
    check(table.as_bytes(), "", &["--label \"out\"  (2 values: \"no\", \"yes\")"]);
    check(
        table.as_bytes(),
        "uot",
        &["no column \"uot\"", "Did you mean \"out\"?", "\"x\", \"y\", \"out\""],
    );
    check(table.as_bytes(), "y", &["a quantity"]);
    check(b"x,out\n", "out", &["no rows after the line with the names"]);
    check(b"x,out\n1,yes\n2,no\n", "out", &["2 rows can be used; at least 20"]);
    check(b"", "out", &["is empty"]);
    check(b"x,out\n1,yes\n2,yes\n", "out", &["one value only, \"yes\""]);
    let ragged = table.replacen("\n", "\n1,2,3,4,yes\n", 20).replacen("\n1,2,3,4,yes\n", "\n", 19);
    let line = ragged.lines().position(|line| line == "1,2,3,4,yes").unwrap() + 1;
    check(ragged.as_bytes(), "out", &[&format!("line {line}: 5 cells, where 3")]);
    check(ragged.replace('\n', "\r\n").as_bytes(), "out", &[&format!("line {line}: 5 cells")]);
    let open = format!("{table}1,\"open,no\n2,3,no\n");
    check(open.as_bytes(), "out", &["line 42: a quote is opened and not closed"]);
    let long = format!("{table}1,\"{},no\n", "x".repeat(rows::ROW_BYTES_MAX * 2));
    check(long.as_bytes(), "out", &["from line 42", "a row of more than"]);
    let wide: String = (0..10_000).map(|column| format!("c{column},")).collect();
    check(format!("{wide}out\n{wide}yes\n").as_bytes(), "out", &["10001 columns; at most 1000"]);
    check(&[0, 1, 2, 3, 255, 254, 10, 0, 7].repeat(50), "out", &["rows.csv"]);
}

#[test]
fn files_are_replaced_by_force_only() {
    let made = Made::from(file("y", |row| (row % 6).to_string()), "out");
    made.report();
    let edited = format!("{}# mine\n", made.text(CONFIGURATION));
    fs::write(made.request.folder.join(CONFIGURATION), &edited).unwrap();
    let error = format!("{:#}", made.make().unwrap_err());
    assert!(error.contains("foretell.toml") && error.contains("--force"), "{error}");
    // Newer rows, with the same fields.
    fs::write(&made.request.file, file("y", |row| (row % 5).to_string())).unwrap();
    let before = made.text(INITIAL);
    let made = made.with(|request| request.data_only = true);
    made.report();
    assert_eq!(made.text(CONFIGURATION), edited);
    assert_ne!(made.text(INITIAL), before);
    // Rows that no longer fit.
    let before = made.text(INITIAL);
    fs::write(&made.request.file, file("z", |row| (row % 5).to_string())).unwrap();
    let error = format!("{:#}", made.make().unwrap_err());
    assert!(error.contains("no longer fits") && error.contains("\"z\""), "{error}");
    assert_eq!(made.text(INITIAL), before);
    // A table that was written is not the file.
    let written = made.request.folder.join(INITIAL);
    let made = made.with(|request| request.file = written);
    let error = format!("{:#}", made.make().unwrap_err());
    assert!(error.contains("that it was made from"), "{error}");
    assert!(made.folder.path().exists());
}

#[test]
fn names_and_texts_with_any_characters_make_valid_files() {
    let header = "\"größe \"\"x\"\"\\\";\"a|b\";event_id;completed;\"out\nput\"\n";
    let rows = (0..30).map(|row| {
        format!(
            "{};\"c'\"\"{}\\\";{};{};\"l\"\"{}\n\\\"\n",
            row % 7,
            row % 2,
            row % 3,
            row % 4,
            row % 2
        )
    });
    let made = Made::from(header.to_owned() + &rows.collect::<String>(), "out\nput");
    let report = made.report();
    assert_eq!(report.labels.len(), 2);
    let config = Config::load(&made.request.folder.join(CONFIGURATION), &[]).unwrap();
    assert_eq!(config.classes.len(), 2);
    assert!(made.text(README).contains("a\\|b"));
}

#[test]
fn an_id_that_begins_with_a_digit_makes_a_valid_schema() {
    let bytes = file("y", |row| (row % 6).to_string());
    for id in ["123", "2026.q1", "9-lives"] {
        let made = Made::from(&bytes, "out").with(|request| request.id = Some(id.to_owned()));
        made.report();
        // The configuration parses the schema.
        Config::load(&made.request.folder.join(CONFIGURATION), &[]).unwrap();
    }
}

#[test]
fn numbers_with_one_unit_are_numbers() {
    let check = |cell: &dyn Fn(usize) -> String, expected: (&str, &str), first: &str| {
        let made = Made::from(file("y", cell), "out");
        let report = made.report();
        assert_eq!(role(&report, "y"), expected, "{:?}", report.columns);
        assert!(made.rows().iter().any(|row| row.contains(&first.to_owned())), "{first}");
        let why = &report.columns[1].why;
        assert_eq!(why.contains("is left out"), expected.0.ends_with("number"), "{why}");
    };
    let number = ("decimal number", "answer");
    check(&|row| format!("\"$4,{:03}.17\"", row * 7), number, "4000.17");
    check(&|row| format!("{row}.6%"), number, "39.6");
    check(&|row| format!("\"1.{:03},82 €\"", row * 7), number, "1000.82");
    check(&|row| format!("{} kg", row * 7), ("whole number", "answer"), "7");
    check(&|row| format!("k{}", row % 3), ("category", "answer"), "k2");
    // Two units stay text, and are no id.
    let mixed = |row: usize| format!("{}{row}", if row.is_multiple_of(2) { "$" } else { "€" });
    let report = Made::from(file("y", mixed), "out").report();
    let (_, role) = role(&report, "y");
    assert_eq!(role, "not used", "{report:?}");
}

#[test]
fn numbers_that_stand_for_no_answer_are_missing_in_the_stream_too() {
    let gap = |sentinel: &'static str, others: &'static str| {
        move |row: usize| match row % 4 {
            0 => sentinel.to_owned(),
            _ => format!("{}{others}", row % 5),
        }
    };
    for (sentinel, others) in [("-999", ""), ("-999.0", ".5"), ("-999.00", ".0"), ("-999", ".5")] {
        let made = Made::from(file("age", gap(sentinel, others)), "out");
        let report = made.report();
        let missing = report.columns[1].missing;
        assert!((missing - 0.25).abs() < 1e-9, "{missing}");
        assert_eq!(report.missing_marks, ["-999"]);
        assert!(made.text(CONFIGURATION).contains("missing = [\"-999\"]"));
        assert!(made.rows().iter().all(|row| !row[1].starts_with('-')));
        let config = Config::load(&made.request.folder.join(CONFIGURATION), &[]).unwrap();
        let row =
            |event: Json| config.event_schema.answers_of_json(event.as_object().unwrap()).unwrap();
        assert_eq!(row(json!({"x": 3, "age": -999})), row(json!({"x": 3})));
        assert_eq!(row(json!({"x": 3, "age": -999.0})), row(json!({"x": 3})));
        assert_ne!(row(json!({"x": 3, "age": 9})), row(json!({"x": 3})));
    }
    // A value of another answer.
    let both = |row: usize| {
        let other = [-999, -5, 7][row % 3];
        format!("{},{other}", gap("-999", "")(row))
    };
    let report = Made::from(file("age,balance", both), "out").report();
    assert!(report.missing_marks.is_empty(), "{:?}", report.missing_marks);
    let warning = report.warnings.iter().find(|warning| warning.contains("send null"));
    assert!(warning.is_some_and(|warning| warning.contains("\"balance\"")), "{report:?}");
}

#[test]
fn the_share_of_missing_values_counts_what_is_written_as_missing() {
    let share =
        |report: &Report, column: usize| format!("{:.0}", report.columns[column].missing * 100.0);
    let rows: String = (0..100)
        .map(|row| {
            let cell = if row == 50 { "unknown".to_owned() } else { (row % 9).to_string() };
            format!("{cell},{}\n", ["None", "yes", "NA", "yes"][row % 4])
        })
        .collect();
    let report = Made::from(format!("x,out\n{rows}"), "out").report();
    assert_eq!(share(&report, 0), "1");
    assert_eq!(share(&report, 1), "25", "NA is no label, and None is one");
    assert_eq!(report.rows_without_label, 25);
}

#[test]
fn newer_rows_have_the_labels_of_the_configuration() {
    let made = Made::from(file("y", |row| (row % 6).to_string()), "out");
    made.report();
    let newer = file("y", |row| (row % 5).to_string());
    let before = [made.text(INITIAL), made.text(PLAY)];
    let made = made.with(|request| request.data_only = true);
    fs::write(&made.request.file, newer.replacen(",yes", ",maybe", 3)).unwrap();
    let error = format!("{:#}", made.make().unwrap_err());
    assert!(error.contains("\"maybe\" (3 rows)") && error.contains("outcomes.labels"), "{error}");
    assert_eq!([made.text(INITIAL), made.text(PLAY)], before);
    // Other spellings are written as the configuration has them.
    fs::write(&made.request.file, newer.replace(",yes", ",YES")).unwrap();
    made.report();
    let labels: BTreeSet<String> = made.rows().into_iter().map(|row| row[2].clone()).collect();
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["no", "yes"]);
}

#[test]
fn options_that_contradict_the_file_are_reported() {
    let warnings = |cell: &dyn Fn(usize) -> String, change: &dyn Fn(&mut Request)| {
        Made::from(file("y", cell), "out").with(change).report().warnings
    };
    let day_first = |row: usize| format!("{:02}/04/199{}", row % 28 + 1, row % 10);
    let dates = |order| move |request: &mut Request| request.dates = Some(order);
    let found = warnings(&day_first, &dates(DayOrder::MonthFirst));
    assert!(found.iter().any(|warning| warning.contains("--dates")), "{found:?}");
    assert!(warnings(&day_first, &dates(DayOrder::DayFirst)).is_empty());
    let point = |row: usize| format!("{}.5", row % 7);
    let decimal = |mark| move |request: &mut Request| request.decimal = Some(mark);
    let found = warnings(&point, &decimal(DecimalMark::Comma));
    assert!(found.iter().any(|warning| warning.contains("--decimal")), "{found:?}");
    assert!(warnings(&point, &decimal(DecimalMark::Point)).is_empty());
    let made = Made::from(file("y", point), "out").with(|request| request.delimiter = Some(b';'));
    let error = made.refused();
    assert!(error.contains("leave out --delimiter"), "{error}");
}

#[test]
fn one_number_tells_the_decimal_mark_of_its_column() {
    let made = Made::from(
        file("y", |row| if row == 30 { "\"1,5\"".to_owned() } else { (row % 9).to_string() }),
        "out",
    );
    assert_eq!(role(&made.report(), "y"), ("decimal number", "answer"));
    assert!(made.rows().iter().any(|row| row[1] == "1.5"));
}

#[test]
fn numbers_of_rows_from_any_number_are_not_used() {
    let rows: String = (0..40)
        .map(|row| format!("{},{},{}\n", row + 1000, row * row % 17, ["yes", "no"][row % 3 % 2]))
        .collect();
    let report = Made::from(rows, "3").report();
    assert_eq!(role(&report, "column_1"), ("whole number", "not used"));
    let report = Made::from(file("year", |row| (row + 1980).to_string()), "out").report();
    assert_eq!(role(&report, "year"), ("whole number", "answer"));
}

#[test]
fn the_readme_sends_the_label_of_the_row_that_it_shows() {
    let made = Made::from(file("y", |row| (row % 6).to_string()), "out");
    made.report();
    // The first row of `file` is `0,0,yes`; the last of the classes is `yes`, unless `no` is the positive one.
    assert!(made.text(README).contains("\"label\":\"yes\""), "{}", made.text(README));
    let made = made.with(|request| {
        (request.positive, request.force) = (Some("no".to_owned()), true);
    });
    made.report();
    assert!(made.text(README).contains("\"label\":\"yes\""), "{}", made.text(README));
}

#[test]
fn many_other_texts_among_dates_or_numbers_are_reported() {
    let check = |cell: &dyn Fn(usize) -> String, words: &str, text: &str| {
        let report = Made::from(file("y", cell), "out").report();
        assert_eq!(role(&report, "y"), ("category", "answer"), "{report:?}");
        assert!(report.columns[1].why.contains(words), "{:?}", report.columns[1]);
        let warning = report.warnings.iter().find(|warning| warning.contains("--missing"));
        assert!(warning.is_some_and(|warning| warning.contains(text)), "{:?}", report.warnings);
    };
    let date = |row: usize| match row % 10 {
        0 => "0000-00-00".to_owned(),
        day => format!("2026-05-{day:02}"),
    };
    check(&date, "90% are dates", "0000-00-00");
    let number = |row: usize| {
        if row.is_multiple_of(10) { "broken".to_owned() } else { (row % 7).to_string() }
    };
    check(&number, "90% are numbers", "broken");
}
