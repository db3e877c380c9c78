//! How a file writes its rows: the delimiter, quotes, lines before the table, and whether its first row names the columns.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use anyhow::Context;

use crate::app::new::{
    source::Source,
    units::Unit,
    values::{DayOrder, MissingMarks, Moment},
};

/// Maximum number of columns: a quarter of what a model may have, and more than a person
/// looks at in the table of what was assumed.
pub(super) const COLUMNS_MAX: usize = 1_000;
/// Bytes at the start of the text that the dialect is found from.
const SAMPLE_BYTES: u64 = 256 << 10;
/// Lines before the table, such as a title.
const PREAMBLE_MAX: usize = 20;
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Whether the first row names the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderChoice {
    /// If it looks so.
    #[default]
    Guess,
    /// It does.
    Yes,
    /// It does not: the columns are `column_1`, `column_2`, and so on.
    No,
}

/// What the user says about the dialect.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DialectChoice {
    pub(super) delimiter: Option<u8>,
    pub(super) header: HeaderChoice,
}

/// How a file writes its rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    /// Whether quotes inside of cells have a backslash before them.
    pub(super) has_escapes: bool,
    /// Whether the first line is Excel's `sep=;`.
    names_delimiter: bool,
    /// Rows before the table.
    pub(super) preamble: usize,
    pub(super) has_header: bool,
    /// The names of the columns, each with a text.
    pub(super) names: Vec<String>,
    /// The columns without a name in the header, which are named by their numbers.
    pub(super) unnamed: BTreeSet<usize>,
}

impl Dialect {
    /// Finds the dialect from the start of the text.
    ///
    /// # Errors
    /// If there is no table of at least two columns.
    pub(super) fn find(source: &Source, choice: DialectChoice, path: &str) -> anyhow::Result<Self> {
        let mut sample = Vec::new();
        let mut text = source.text()?.take(SAMPLE_BYTES);
        text.read_to_end(&mut sample).with_context(|| format!("cannot read {path}"))?;
        // The last line may be cut.
        let is_whole = u64::try_from(sample.len()).is_ok_and(|length| length < SAMPLE_BYTES);
        let last_line = sample.iter().rposition(|byte| *byte == b'\n');
        if let Some(end) = last_line.filter(|_| !is_whole) {
            sample.truncate(end + 1);
        }
        let sample = String::from_utf8_lossy(&sample);
        Self::of_sample(&sample, choice).with_context(|| path.to_owned())
    }

    pub(super) fn of_sample(sample: &str, choice: DialectChoice) -> anyhow::Result<Self> {
        let first_line = sample.lines().next().unwrap_or("");
        // Excel's.
        let named = match first_line.strip_prefix("sep=").map(str::as_bytes) {
            Some(&[delimiter]) => Some(delimiter),
            Some(_) | None => None,
        };
        let names_delimiter = named.is_some();
        let sample = if names_delimiter { &sample[first_line.len()..] } else { sample };
        let chosen = choice.delimiter.or(named);
        let candidates: Vec<u8> = match chosen {
            Some(delimiter) => vec![delimiter],
            None => DELIMITERS.to_vec(),
        };
        let mut best: Option<(Shape, Self)> = None;
        for delimiter in candidates {
            let quote = quote_of(sample, delimiter);
            let dialect = Self {
                delimiter,
                quote,
                has_escapes: is_escaped(sample, quote, delimiter),
                names_delimiter,
                preamble: 0,
                has_header: false,
                names: Vec::new(),
                unnamed: BTreeSet::new(),
            };
            let shape = Shape::of(&dialect.rows(sample));
            if best.as_ref().is_none_or(|(other, _)| shape.is_better_than(other)) {
                best = Some((shape, dialect));
            }
        }
        let (shape, mut dialect) = best.context("there is no delimiter")?;
        let rows = dialect.rows(sample);
        anyhow::ensure!(!rows.is_empty(), "there are no rows");
        anyhow::ensure!(
            shape.columns >= 2 || chosen.is_none(),
            "{:?} does not separate the columns, because there is only one: leave out --delimiter, so that the delimiter is found, or name \
             another (a first line `sep=` names one, too)",
            dialect.delimiter_name()
        );
        anyhow::ensure!(
            shape.columns >= 2,
            "there is only one column, so the delimiter is none of , ; tab | : name it with --delimiter (columns that are separated by \
             spaces have to be converted)"
        );
        anyhow::ensure!(
            shape.columns <= COLUMNS_MAX,
            "{} columns; at most {COLUMNS_MAX} can be used: leave out those that say nothing about the label",
            shape.columns
        );
        dialect.preamble = shape.preamble;
        if choice.header != HeaderChoice::No {
            dialect.preamble += title_rows(&rows[shape.preamble..], shape.columns);
        }
        dialect.find_header(&rows[dialect.preamble..], shape.columns, choice.header);
        Ok(dialect)
    }

    /// Finds whether the first row names the columns, and their names.
    fn find_header(&mut self, rows: &[csv::StringRecord], columns: usize, choice: HeaderChoice) {
        let first = &rows[0];
        self.has_header = match choice {
            HeaderChoice::Yes => true,
            HeaderChoice::No => false,
            HeaderChoice::Guess => is_header(first, &rows[1..]),
        };
        let mut names = vec![String::new(); columns];
        if self.has_header {
            // R writes no name for the names of rows.
            let shift = columns.saturating_sub(first.len());
            for (name, cell) in names.iter_mut().skip(shift).zip(first) {
                cell.trim().clone_into(name);
            }
        }
        for index in 0..columns {
            if !names[index].is_empty() {
                continue;
            }
            let mut name = format!("column_{}", index + 1);
            while names.contains(&name) {
                name.push('_');
            }
            names[index] = name;
            if self.has_header {
                self.unnamed.insert(index);
            }
        }
        self.names = names;
    }

    /// A reader of the rows.
    pub(super) fn reader<R: Read>(&self, text: R) -> csv::Reader<R> {
        csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quote(self.quote)
            .escape(self.has_escapes.then_some(b'\\'))
            .flexible(true)
            .has_headers(false)
            .from_reader(text)
    }

    /// Number of rows before the first row of values.
    pub(super) fn skipped_rows(&self) -> usize {
        usize::from(self.names_delimiter) + self.preamble + usize::from(self.has_header)
    }

    /// The rows of a sample.
    fn rows(&self, sample: &str) -> Vec<csv::StringRecord> {
        self.reader(sample.as_bytes()).into_records().map_while(Result::ok).collect()
    }

    /// The delimiter in words.
    pub(super) fn delimiter_name(&self) -> String {
        match self.delimiter {
            b'\t' => "tab".to_owned(),
            other => char::from(other).to_string(),
        }
    }
}

/// The quotes around cells: single ones if they occur in pairs and no cell begins with a double one.
fn quote_of(sample: &str, delimiter: u8) -> u8 {
    let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| *byte == delimiter || *byte == b'\n');
    let bytes = sample.as_bytes();
    let (mut opened, mut closed) = (0, 0);
    for (at, byte) in bytes.iter().enumerate() {
        let is_first = is_edge(at.checked_sub(1).and_then(|before| bytes.get(before)));
        match byte {
            b'"' if is_first => return b'"',
            b'\'' if is_first => opened += 1,
            b'\'' if is_edge(bytes.get(at + 1)) => closed += 1,
            _ => {}
        }
    }
    if opened > 0 && opened == closed { b'\'' } else { b'"' }
}

/// Whether quotes in cells have a backslash before them, as in dumps of MySQL.
fn is_escaped(sample: &str, quote: u8, delimiter: u8) -> bool {
    sample.as_bytes().windows(3).any(|bytes| {
        bytes[0] == b'\\' && bytes[1] == quote && ![delimiter, b'\n', quote].contains(&bytes[2])
    })
}

/// How well the rows of a sample make a table.
#[derive(Clone, Copy, Debug)]
struct Shape {
    columns: usize,
    /// Rows before the first one with this number of columns.
    preamble: usize,
    /// Share of the rows after these that have this number of columns, in percent.
    regular: usize,
    /// Share of the cells that are clean: numbers, times, blanks, or texts without another delimiter, in percent.
    clean: usize,
}

impl Shape {
    fn of(rows: &[csv::StringRecord]) -> Self {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for row in rows {
            *counts.entry(row.len()).or_default() += 1;
        }
        let common = counts.iter().max_by_key(|(_, count)| **count);
        let columns = common.map_or(0, |(columns, _)| *columns);
        let first = rows.iter().position(|row| row.len() == columns).unwrap_or(0);
        // A header of R lacks the name of the first column.
        let names_all_but_one =
            first == 1 && rows[0].len() + 1 == columns && is_header(&rows[0], &rows[1..]);
        let preamble = if first > PREAMBLE_MAX || names_all_but_one { 0 } else { first };
        let (mut regular, mut cells, mut clean) = (0, 0, 0);
        for row in &rows[preamble.min(rows.len())..] {
            regular += usize::from(row.len() == columns);
            cells += row.len();
            clean += row.iter().filter(|cell| is_clean(cell)).count();
        }
        let of = rows.len() - preamble.min(rows.len());
        Self {
            columns,
            preamble,
            regular: regular * 100 / of.max(1),
            clean: clean * 100 / cells.max(1),
        }
    }

    fn is_better_than(&self, other: &Self) -> bool {
        let rank = |shape: &Self| {
            (shape.columns >= 2, shape.regular >= 95, shape.regular + shape.clean, shape.columns)
        };
        rank(self) > rank(other)
    }
}

fn is_clean(cell: &str) -> bool {
    let cell = cell.trim();
    is_value(cell) || !cell.contains([',', ';', '\t', '|'])
}

/// Whether a trimmed cell is blank, a number, maybe with a unit, or a time.
fn is_value(cell: &str) -> bool {
    cell.is_empty()
        || Unit::of_number(cell).is_some()
        || Moment::parse(cell, DayOrder::DayFirst).is_some()
        || Moment::parse(cell, DayOrder::MonthFirst).is_some()
}

/// Number of rows with as many cells as the table has columns that are a title, such as `Report of May;;;` in the export of a
/// spreadsheet: half of their cells or more are blank, and a row that names the columns comes after them.
fn title_rows(rows: &[csv::StringRecord], columns: usize) -> usize {
    let filled =
        |row: &csv::StringRecord| row.iter().filter(|cell| !cell.trim().is_empty()).count();
    let is_title = |row: &&csv::StringRecord| filled(row) * 2 <= columns;
    let titles = rows.iter().take(PREAMBLE_MAX).take_while(is_title).count();
    let Some(header) = rows.get(titles).filter(|_| titles > 0) else { return 0 };
    // Row names have no name in a header, and are in each row below it.
    let is_named = filled(header) + 1 >= columns && header.len() <= columns;
    if is_named && is_header(header, &rows[titles + 1..]) { titles } else { 0 }
}

/// Whether the first row names the columns: none of its cells is a value, besides years, and some column below has values, or
/// texts that come again while the first one does not.
fn is_header(first: &csv::StringRecord, rest: &[csv::StringRecord]) -> bool {
    const ROWS: usize = 1_000;
    let marks = MissingMarks::new(None);
    let named: Vec<&str> = first.iter().map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let distinct: BTreeSet<&&str> = named.iter().collect();
    if named.is_empty() || distinct.len() * 2 < named.len() {
        return false;
    }
    let shift = rest.first().map_or(0, |row| row.len().saturating_sub(first.len()));
    let rest = &rest[..rest.len().min(ROWS)];
    let (mut names, mut years) = (0, 0);
    for (index, cell) in
        first.iter().map(str::trim).enumerate().filter(|(_, cell)| !cell.is_empty())
    {
        let below = rest.iter().filter_map(|row| row.get(index + shift)).map(str::trim);
        let below: Vec<&str> = below.filter(|cell| !marks.contains(cell)).collect();
        let values = below.iter().filter(|cell| is_value(cell)).count();
        let distinct: BTreeSet<&&str> = below.iter().collect();
        let is_year = cell.parse().is_ok_and(|year: u16| (1800..=2200).contains(&year));
        if is_year {
            years += 1;
        } else if is_value(cell) || marks.contains(cell) || distinct.contains(&cell) {
            return false;
        } else if values * 10 > below.len() * 9 || distinct.len() * 2 < below.len() {
            names += 1;
        }
    }
    // Without any hint, a row of different texts is taken for names.
    names > 0 || (years < named.len() && distinct.len() == named.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(sample: &str) -> Dialect {
        Dialect::of_sample(sample, DialectChoice::default()).unwrap()
    }

    fn check(sample: &str, delimiter: char, names: &[&str]) -> Dialect {
        let dialect = find(sample);
        assert_eq!(char::from(dialect.delimiter), delimiter, "{sample}");
        assert_eq!(dialect.names, names, "{sample}");
        dialect
    }

    #[test]
    fn delimiters() {
        check("a,b,c\n1,2,x\n3,4,y\n", ',', &["a", "b", "c"]);
        check("a;b;c\n1,5;2,5;x\n3,5;4,5;y\n", ';', &["a", "b", "c"]);
        check("a\tb\n1\tx, y\n3\tz, w\n", '\t', &["a", "b"]);
        check("a|b\n1|x\n3|y\n", '|', &["a", "b"]);
        check("a,b\n1,\"x;y\"\n3,\"z;w\"\n", ',', &["a", "b"]);
        check("sep=;\na;b\n1;x\n2;y\n", ';', &["a", "b"]);
        check("1,5;2,5;x\n3,5;4,5;y\n", ';', &["column_1", "column_2", "column_3"]);
        check("text,n\n\"a\nb\",1\n\"c\",2\n", ',', &["text", "n"]);
    }

    #[test]
    fn quotes() {
        assert_eq!(find("a,b\n'x, y',1\n'z',2\n").quote, b'\'');
        assert_eq!(find("a,b\n\"it's, y\",1\nz,2\n").quote, b'"');
        assert_eq!(find("a,b\n's-Hertogenbosch,1\nz,2\n").quote, b'"');
        assert!(find("a,b\n\"say \\\"hi\\\" now\",1\nz,2\n").has_escapes);
        assert!(!find("a,b\n\"C:\\\",1\nz,2\n").has_escapes);
    }

    #[test]
    fn headers() {
        check("x,y\na,b\na,c\n", ',', &["x", "y"]);
        check("a,b\na,c\nb,b\n", ',', &["column_1", "column_2"]);
        check("150,4,setosa\n5.1,3.5,0\n4.9,3.0,0\n", ',', &["column_1", "column_2", "column_3"]);
        check("1,x\n2,y\n", ',', &["column_1", "column_2"]);
        let sample = "\"\",\"x\",\"y\"\n\"1\",2,a\n\"2\",3,b\n";
        let dialect = check(sample, ',', &["column_1", "x", "y"]);
        assert_eq!(dialect.unnamed, BTreeSet::from([0]));
        let sample = "column_4, ,y,\n1,2,a,\n2,3,b,\n";
        let dialect = check(sample, ',', &["column_4", "column_2", "y", "column_4_"]);
        assert_eq!(dialect.unnamed, BTreeSet::from([1, 3]));
        // R's `write.table`.
        let dialect = check("x y,z\n1,2,a\n2,3,b\n3,3,b\n", ',', &["column_1", "x y", "z"]);
        assert_eq!(dialect.unnamed, BTreeSet::from([0]));
        // Rows before the table, and names that are years.
        let dialect = check(
            "Report of May\n\nname,kind,2019,2020\na,k,1,2\nb,l,2,3\nc,m,3,4\n",
            ',',
            &["name", "kind", "2019", "2020"],
        );
        assert_eq!(dialect.preamble, 1, "the CSV reader skips blank lines");
        let dialect = find("150,4,setosa\n5.1,3.5,1.4,0.2,0\n4.9,3,1.4,0.2,0\n4.7,3.2,1.3,0.2,0\n");
        assert_eq!((dialect.preamble, dialect.has_header), (1, false));
    }

    #[test]
    fn titles_with_delimiters_are_before_the_table() {
        let rows = "ann;3;2,5\nbob;4;3,5\ncyd;4;1,5\n";
        for title in [
            "Report 2024;;\n",
            ";;\n;Report;\n",
            "Report 2024;;\n;;\n",
            "Report\nof May;;\n",
            "\"Report; all\";;\n",
        ] {
            let found = check(&format!("{title}who;n;x\n{rows}"), ';', &["who", "n", "x"]);
            assert_eq!(found.preamble, title.lines().count(), "{title}");
        }
        let found = check("Report;\nwho;n\nann;3\nbob;4\n", ';', &["who", "n"]);
        assert_eq!(found.preamble, 1);
        let sample = "Report;2024;;\nwho;n;x;y\nann;3;2,5;1\nbob;4;3,5;2\n";
        assert_eq!(check(sample, ';', &["who", "n", "x", "y"]).preamble, 1);
        // A header that lacks names is the header, and blank cells at the start of the rows are values.
        for header in ["who;;", "who;n;"] {
            assert_eq!(find(&format!("{header}\n{rows}")).preamble, 0, "{header}");
        }
        check("who;n;x\nann;;\nbob;;\ncyd;4;1,5\n", ';', &["who", "n", "x"]);
        let sample = "ann;;\nbob;;\ncyd;4;1,5\ndan;2;3,5\n";
        assert_eq!(find(sample).preamble, 0);
        let choice = DialectChoice { header: HeaderChoice::No, ..DialectChoice::default() };
        let sample = format!("Report 2024;;\nwho;n;x\n{rows}");
        assert_eq!(Dialect::of_sample(&sample, choice).unwrap().preamble, 0);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let check = |sample: &str, words: &str| {
            let found = Dialect::of_sample(sample, DialectChoice::default());
            let error = found.unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} in {error}");
        };
        check("", "no rows");
        check("\n\n", "no rows");
        check("a\n1\n2\n", "only one column");
        check("a b\n1 2\n", "spaces");
        check(&(1..=10_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","), "10000 columns");
    }
}
