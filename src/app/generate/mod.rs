//! `foretell generate`: writes a made-up table as CSV, row by row. What the rows are is in the crate `foretell-generate`; here
//! are the columns that every table has, names and event times, and the file.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;

use crate::app::shutdown::Shutdown;
use foretell_generate::Row;

/// Name of the column with the event times.
const EVENT_TIME: &str = "event_time";
/// Rows between two calls of `show`.
const ROWS_PER_STEP: u64 = 10_000;

/// A table to write. Its rows may have no end.
pub struct Table<'a, R> {
    /// Name of the column with the name of each row.
    pub id: &'a str,
    /// Names of the generator's columns.
    pub columns: &'a [&'a str],
    /// Name of the column with the label.
    pub label: &'a str,
    /// The seed, which is part of each name, so that two tables have no name in common.
    pub seed: u64,
    /// Number of rows.
    pub number: u64,
    /// Event times; none: the table has no such column.
    pub times: Option<EventTimes>,
    pub rows: R,
}

/// The event times of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTimes {
    /// That of the first row, since 1970.
    pub from: Duration,
    /// Time between two rows.
    pub every: Duration,
}

/// The last second that RFC 3339 can write, since 1970: the end of the year 9999.
const TIME_MAX: Duration = Duration::from_secs(253_402_300_799);

impl EventTimes {
    /// The event time of a row.
    fn of(self, row: u64) -> Option<Duration> {
        let nanos = self.every.as_nanos().checked_mul(u128::from(row))?;
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
        let time = self.from.checked_add(Duration::new(seconds, rest))?;
        (time <= TIME_MAX).then_some(time)
    }
}

/// Writes a table, with a header. `show` gets the number of rows that were written so far, now and then.
///
/// # Errors
/// If it cannot be written, is stopped, or has event times after the year 9999.
pub fn write<R: Iterator<Item = Row>>(
    table: Table<'_, R>,
    to: &mut dyn Write,
    shutdown: &Shutdown,
    show: &mut dyn FnMut(u64),
) -> anyhow::Result<()> {
    let Table { id, columns, label, seed, number, times, rows } = table;
    if let Some(times) = times {
        let last = times.of(number.saturating_sub(1));
        last.context("the event time of the last row would be after the year 9999")?;
    }
    let mut writer = csv::Writer::from_writer(to);
    let time_column = times.map(|_| EVENT_TIME);
    let header = [id].into_iter().chain(time_column).chain(columns.iter().copied()).chain([label]);
    writer.write_record(header).map_err(io_error)?;
    for (index, row) in (0..number).zip(rows) {
        let time = times.and_then(|times| times.of(index)).map(|time| {
            humantime_serde::re::humantime::format_rfc3339_millis(UNIX_EPOCH + time).to_string()
        });
        let id = format!("{seed}-{index}");
        let cells = row.cells.iter().map(ToString::to_string);
        let fields = [id].into_iter().chain(time).chain(cells).chain([row.label.to_owned()]);
        writer.write_record(fields).map_err(io_error)?;
        if index % ROWS_PER_STEP == 0 {
            show(index);
            anyhow::ensure!(!shutdown.signal().is_stopped(), "stopped before the end");
        }
    }
    writer.flush()?;
    show(number);
    Ok(())
}

fn io_error(error: csv::Error) -> io::Error {
    let message = error.to_string();
    let csv::ErrorKind::Io(error) = error.into_kind() else {
        return io::Error::other(message);
    };
    error
}

/// Writes a file by `write`, and replaces an existing one only with `force`. The file is there once it is complete.
///
/// # Errors
/// If it exists or cannot be written.
pub fn write_file(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if path.exists() && !force {
        anyhow::bail!("{} exists: choose another file, or replace it with --force", path.display());
    }
    let cannot = || format!("cannot write {}", path.display());
    let part = part_of(path);
    let mut file = BufWriter::new(File::create(&part).with_context(cannot)?);
    let written = write(&mut file).and_then(|()| file.flush().map_err(anyhow::Error::from));
    let written = written.and_then(|()| fs::rename(&part, path).map_err(anyhow::Error::from));
    written.inspect_err(|_| {
        if let Err(error) = fs::remove_file(&part) {
            tracing::warn!(path = %part.display(), %error, "cannot remove the unfinished file");
        }
    })
}

/// The file that is written until it is complete.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::shutdown::StopReason;
    use foretell_generate::Cell;

    fn table(number: u64, times: Option<EventTimes>) -> Table<'static, impl Iterator<Item = Row>> {
        let cells = vec![Cell::Number(1.5), Cell::Category("a, b".to_owned())];
        let rows = std::iter::repeat(Row { cells, label: "yes" });
        Table { id: "id", columns: &["x", "y"], label: "out", seed: 7, number, times, rows }
    }

    fn text(number: u64, times: Option<EventTimes>) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        write(table(number, times), &mut bytes, &Shutdown::default(), &mut |_| {})?;
        Ok(String::from_utf8(bytes)?)
    }

    #[test]
    fn rows_have_names_and_event_times_and_are_csv() {
        assert_eq!(text(1, None).unwrap(), "id,x,y,out\n7-0,1.5,\"a, b\",yes\n");
        let every = Duration::from_millis(1_500);
        let times = EventTimes { from: Duration::from_secs(86_400), every };
        let expected = "id,event_time,x,y,out\n\
            7-0,1970-01-02T00:00:00.000Z,1.5,\"a, b\",yes\n\
            7-1,1970-01-02T00:00:01.500Z,1.5,\"a, b\",yes\n";
        assert_eq!(text(2, Some(times)).unwrap(), expected);
    }

    #[test]
    fn event_times_end_with_the_year_9999() {
        let times = |every| Some(EventTimes { from: TIME_MAX, every });
        assert!(text(1, times(Duration::from_secs(1))).is_ok());
        for every in [Duration::from_secs(1), Duration::MAX] {
            let error = text(2, times(every)).unwrap_err().to_string();
            assert!(error.contains("9999"), "{error}");
        }
    }

    #[test]
    fn a_file_is_complete_or_not_there_and_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let names = || {
            let files = fs::read_dir(folder.path()).unwrap();
            files.map(|file| file.unwrap().file_name()).collect::<Vec<_>>()
        };
        let stopped = Shutdown::default();
        stopped.stop(StopReason::Asked);
        let halfway = |to: &mut dyn Write| write(table(5, None), to, &stopped, &mut |_| {});
        let error = write_file(&path, false, halfway).unwrap_err().to_string();
        assert!(error.contains("stopped"), "{error}");
        assert!(names().is_empty(), "{:?}", names());
        let put = |text: &'static str| move |to: &mut dyn Write| Ok(to.write_all(text.as_bytes())?);
        write_file(&path, false, put("one")).unwrap();
        let error = write_file(&path, false, put("two")).unwrap_err().to_string();
        assert!(error.contains("--force") && error.contains("rows.csv"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write_file(&path, true, put("two")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(), ["rows.csv"]);
    }
}
