//! Tests of the names and the roles of columns.

use super::*;

#[test]
fn columns_without_a_name_are_named_by_their_numbers() {
    let rows = (0..40).map(|row| format!("{row},a{},{},,{}\n", row % 3, row % 7, row * 7 % 10 < 4));
    let rows: String = rows.collect();
    let made = Made::from(format!(",kind, ,,out\n{rows}"), "out");
    let report = made.report();
    let found: Vec<(&str, &str, &str)> =
        report.columns.iter().map(|c| (c.name.as_str(), c.role, c.why.as_str())).collect();
    let unnamed = "no name in the header";
    assert_eq!(found[0], ("column_1", "not used", &*format!("numbers the rows; {unnamed}")));
    assert_eq!(found[2], ("column_3", "answer", unnamed));
    assert_eq!(found[3], ("column_4", "not used", &*format!("empty; {unnamed}")));
    assert!(made.text(README).contains("| column_3 | column_3 |"), "{}", made.text(README));
    // Their names and numbers are those of the options.
    let made = made.with(|request| {
        (request.ignored, request.force) = (vec!["kind".to_owned(), "3".to_owned()], true);
        request.used = vec!["column_1".to_owned()];
    });
    let report = made.report();
    assert_eq!((report.columns[0].role, report.columns[2].role), ("answer", "not used"));
    // The index of pandas after rows were taken out or put together, and names of rows in R.
    for index in ["7", "Volvo 142E"] {
        let rows: String = rows.lines().map(|row| format!("{index}{row}\n")).collect();
        let report = Made::from(format!(",kind, ,,out\n{rows}"), "out").report();
        assert_eq!(report.columns[0].role, "not used", "{:?}", report.columns[0]);
    }
}

#[test]
fn an_event_id_is_no_respondent() {
    let ids = |names: &str, cells: &dyn Fn(usize) -> String| {
        let made = Made::from(file(names, cells), "out");
        let report = made.report();
        let roles = names.split(',').map(|name| role(&report, name).1);
        (roles.collect::<Vec<_>>(), report.notes.join("\n"), made)
    };
    let event = |row: usize| format!("e{}", row * 37);
    for name in ["event_id", "EventId", "event-uuid", "EVENTID"] {
        let (roles, notes, made) = ids(name, &event);
        assert_eq!(roles, ["event id"], "{name}");
        assert!(notes.contains("no column says who"), "{notes}");
        let config = Config::load(&made.request.folder.join(CONFIGURATION), &[]).unwrap();
        let play = config.data.play.as_ref().unwrap();
        let rows = crate::app::table::read(play, &config.event_schema).unwrap();
        assert!(rows.iter().all(|row| row.event_id.starts_with('e')), "{name}");
    }
    // The id of a person comes before other ids, and one that comes again is reported.
    let both = |row: usize| format!("e{row},o{row},c{}", row * 3);
    let (roles, ..) = ids("event_id,order_id,customer_id", &both);
    assert_eq!(roles, ["event id", "not used", "respondent id"]);
    let both = |row: usize| format!("o{row},c{}", row % 9);
    let (roles, notes, _) = ids("order_id,customer_id", &both);
    assert_eq!(roles, ["respondent id", "not used"]);
    assert!(notes.contains("values of \"customer_id\" come more than once"), "{notes}");
    // An id that comes again names no event.
    let (roles, ..) = ids("event_id", &|row| format!("e{}", row % 9));
    assert_eq!(roles, ["not used"]);
    let made = Made::from(file("event_id", event), "out").with(|request| {
        request.respondent_id = Some("event_id".to_owned());
    });
    assert_eq!(role(&made.report(), "event_id").1, "respondent id");
}

#[test]
fn names_with_commas_can_be_listed() {
    let header = "\"a, b\",a,b,a_b,\"c,d\",out\n";
    let rows = (0..40).map(|row| {
        format!("{},{},{},{},{},{}\n", row % 3, row % 4, row % 5, row % 6, row % 7, row % 2)
    });
    let text = header.to_owned() + &rows.collect::<String>();
    let check = |ignored: &[&str], expected: &[&str]| {
        let made = Made::from(&text, "out").with(|request| {
            request.ignored = ignored.iter().map(|name| (*name).to_owned()).collect();
        });
        let report = made.report();
        let unused = report.columns.iter().filter(|column| column.role == "not used");
        let unused: Vec<&str> = unused.map(|column| column.name.as_str()).collect();
        assert_eq!(unused, expected, "{ignored:?}");
    };
    check(&["a,b"], &["a", "b"]);
    check(&["a, b"], &["a, b"]);
    check(&["c,d"], &["c,d"]);
    check(&["\"a, b\",b"], &["a, b", "b"]);
    check(&["a", "c,d", "b,a_b"], &["a", "b", "a_b", "c,d"]);
    let made = Made::from(&text, "out").with(|request| request.used = vec!["a,x".to_owned()]);
    assert!(made.refused().contains("--use: there is no column \"x\""), "{}", made.refused());
    let made = Made::from(&text, "out").with(|request| {
        request.missing = Some(vec!["\"1,5\",2".to_owned(), "3".to_owned()]);
    });
    let report = made.report();
    assert_eq!(report.missing_marks, ["2", "3"]);
}

#[test]
fn titles_above_the_table_are_skipped_and_said() {
    let table = file("y", |row| (row % 6).to_string());
    for title in ["Report 2024,,\n", ",,\nReport 2024,,\n,,\n", "Report 2024\nof May,,\n"] {
        let made = Made::from(format!("{title}{table}"), "out");
        let report = made.report();
        assert_eq!((report.rows, report.rows_skipped), (40, title.lines().count()), "{title}");
        let said = &report.lines()[0];
        assert!(said.contains("skipped before the row that names the columns"), "{said}");
        assert_eq!(made.rows().len(), 40);
    }
}

#[test]
fn a_byte_of_another_encoding_is_read_and_reported() {
    let text = file("city", |row| ["Köln", "Zürich", "Paris"][row % 3].to_owned());
    let bytes = text.as_bytes();
    let at = text.find('ö').unwrap();
    let mixed = [&bytes[..at], b"\xf6", &bytes[at + 'ö'.len_utf8()..]].concat();
    let made = Made::from(mixed, "out");
    let report = made.report();
    assert_eq!(report.encoding, "UTF-8");
    let warning = report.warnings.first().unwrap();
    assert!(warning.contains("line 2") && warning.contains("\"Köln\""), "{warning}");
    let cities: BTreeSet<String> = made.rows().into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(cities.into_iter().collect::<Vec<_>>(), ["Köln", "Paris", "Zürich"]);
}
