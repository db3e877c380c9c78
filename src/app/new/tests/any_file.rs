//! Properties of `foretell new` with files that are made at random: of a known form, and of any bytes.

use proptest::prelude::*;

use super::*;

/// A column of a made-up file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum MadeColumn {
    Whole,
    Decimal,
    Category,
    Boolean(&'static str, &'static str),
    Date,
    DayFirst(char),
    MonthFirst,
}

impl MadeColumn {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole number",
            Self::Decimal => "decimal number",
            Self::Category => "category",
            Self::Boolean(..) => "boolean",
            Self::Date | Self::DayFirst(_) | Self::MonthFirst => "date",
        }
    }

    /// A cell as it is in the file, and as Foretell gets it.
    fn cell(self, row: usize, number: u32, mark: char) -> (String, String) {
        const WORDS: [&str; 5] = ["Zürich", "Genève", "Köln, Süd", "Paris", "Malmö"];
        // The first two rows show what a column is.
        let number = if row < 2 { 24 + u32::try_from(row).unwrap() } else { number };
        let (year, month, day) = (1990 + number % 40, number % 12 + 1, number / 12 % 28 + 1);
        let (month, day) = if row == 0 { (month, 25) } else { (month, day) };
        let iso = format!("{year}-{month:02}-{day:02}");
        match self {
            Self::Whole => (number.to_string(), number.to_string()),
            Self::Decimal => {
                let (whole, fraction) = (number / 100, number % 100);
                (format!("{whole}{mark}{fraction:02}"), format!("{whole}.{fraction:02}"))
            }
            Self::Category => {
                let word = WORDS[number as usize % WORDS.len()].to_owned();
                (word.clone(), word)
            }
            Self::Boolean(no, yes) => {
                let is_yes = number.is_multiple_of(2);
                ((if is_yes { yes } else { no }).to_owned(), is_yes.to_string())
            }
            Self::Date => (iso.clone(), iso),
            Self::DayFirst(separator) => (format!("{day}{separator}{month}{separator}{year}"), iso),
            Self::MonthFirst => (format!("{month:02}/{day:02}/{year}"), iso),
        }
    }
}

#[derive(Clone, Debug)]
struct MadeFile {
    columns: Vec<MadeColumn>,
    cells: Vec<(u32, bool)>,
    delimiter: u8,
    encoding: &'static str,
    mark: char,
    missing: &'static str,
    line_end: &'static str,
}

fn made_file() -> impl Strategy<Value = MadeFile> {
    let column = prop_oneof![
        Just(MadeColumn::Whole),
        Just(MadeColumn::Decimal),
        Just(MadeColumn::Category),
        prop::sample::select(vec![("false", "true"), ("no", "YES"), ("F", "T"), ("N", "Y")])
            .prop_map(|(no, yes)| MadeColumn::Boolean(no, yes)),
        Just(MadeColumn::Date),
        prop::sample::select(vec!['.', '/', '-']).prop_map(MadeColumn::DayFirst),
        Just(MadeColumn::MonthFirst),
    ];
    let cells = prop::collection::vec((0..100_000_u32, prop::bool::weighted(0.1)), 600);
    (
        prop::collection::vec(column, 1..7),
        cells,
        prop::sample::select(b",;\t|".to_vec()),
        prop::sample::select(vec!["utf-8", "bom", "utf-16le", "utf-16be", "windows-1252"]),
        prop::sample::select(vec!['.', ',']),
        prop::sample::select(vec!["", "NA", "?", "-", "null", "N/A", "#N/A", "NaN"]),
        prop::sample::select(vec!["\n", "\r\n", "\r"]),
    )
        .prop_map(|(columns, cells, delimiter, encoding, mark, missing, line_end)| MadeFile {
            columns,
            cells,
            delimiter,
            encoding,
            mark,
            missing,
            line_end,
        })
}

impl MadeFile {
    /// The bytes of the file, and the rows as Foretell gets them.
    fn write(&self) -> (Vec<u8>, Vec<Vec<String>>) {
        let mut writer =
            csv::WriterBuilder::new().delimiter(self.delimiter).from_writer(Vec::new());
        let names = (0..self.columns.len()).map(|column| format!("c{column}"));
        writer.write_record(names.chain(["label".to_owned()])).unwrap();
        let mut expected = Vec::new();
        for (row, cells) in self.cells.chunks_exact(self.columns.len()).take(100).enumerate() {
            let label = ["one", "two", "three"][cells[0].0 as usize % 3].to_owned();
            let (mut written, mut wanted) = (Vec::new(), Vec::new());
            for (column, (number, is_missing)) in self.columns.iter().zip(cells) {
                let (cell, value) = if *is_missing && row >= 2 {
                    (self.missing.to_owned(), String::new())
                } else {
                    column.cell(row, *number, self.mark)
                };
                written.push(cell);
                wanted.push(value);
            }
            written.push(label.clone());
            wanted.push(label);
            writer.write_record(&written).unwrap();
            expected.push(wanted);
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let text = text.replace('\n', self.line_end);
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{text}").encode_utf16().flat_map(to_bytes).collect()
        };
        let bytes = match self.encoding {
            "utf-8" => text.into_bytes(),
            "bom" => format!("\u{feff}{text}").into_bytes(),
            "utf-16le" => utf16(u16::to_le_bytes),
            "utf-16be" => utf16(u16::to_be_bytes),
            _ => encoding_rs::WINDOWS_1252.encode(&text).0.into_owned(),
        };
        (bytes, expected)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_file_of_a_known_form_is_understood(file in made_file()) {
        let (bytes, mut expected) = file.write();
        let made = Made::from(bytes, "label");
        let report = made.make().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        for (column, wanted) in report.columns.iter().zip(&file.columns) {
            prop_assert_eq!(column.kind, wanted.name(), "{}: {:?}", column.name, report);
            prop_assert!(["answer", "event time"].contains(&column.role), "{:?}", report);
        }
        let mut rows = made.rows();
        rows.sort();
        expected.sort();
        prop_assert_eq!(rows, expected);
        let config = Config::load(&made.request.folder.join(CONFIGURATION), &[]);
        let config = config.map_err(|error| TestCaseError::fail(error.to_string()))?;
        for (key, table) in [("data.initial", &config.data.initial), ("data.play", &config.data.play)] {
            let table = table.as_ref().expect("it is configured");
            let read = crate::app::table::of_configuration(&config, key, table, &config.classes);
            prop_assert!(read.is_ok(), "{:#}", read.unwrap_err());
        }
        // The same file gives the same bytes.
        let before = [INITIAL, PLAY, CONFIGURATION, README].map(|name| made.text(name));
        let made = made.with(|request| request.force = true);
        made.report();
        prop_assert_eq!(before, [INITIAL, PLAY, CONFIGURATION, README].map(|name| made.text(name)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(b",;\t|\"'\n\r 0123456789.-/:eEabNAyn".to_vec()),
                1 => any::<u8>(),
            ],
            0..2_000,
        ),
        label in prop::sample::select(vec!["1", "2", "column_1", ""]),
        header in prop::sample::select(vec![HeaderChoice::Guess, HeaderChoice::Yes, HeaderChoice::No]),
    ) {
        let made = Made::from(&bytes, label).with(|request| request.header = header);
        if let Err(error) = made.make() {
            prop_assert!(!made.request.folder.join(CONFIGURATION).exists(), "{error:#}");
        }
    }
}
