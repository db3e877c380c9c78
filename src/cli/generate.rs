//! `foretell generate`

use std::{
    io::{self, ErrorKind, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};

use crate::{
    app::{
        generate::{self, EventTimes, Table},
        shutdown::{self, Shutdown},
    },
    cli::{Global, numbers, progress::Progress},
};
use foretell_generate::{
    ConceptChange, Row,
    agrawal::{self, Agrawal, Function},
    recommendations::{self, Recommendations},
};
use humantime_serde::re::humantime;

/// Write a made-up table with a known truth as CSV, to try Foretell without data of your own.
///
/// The table has a column with the name of each row, one for each answer, one with the label, and with --from one with event
/// times. What is true can change in the middle of it. The same options and seed give the same bytes. No configuration and no
/// broker is needed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell generate agrawal --rows 5 --seed 1
  foretell generate agrawal --rows 4000 --noise 0.1 --output initial.csv
  foretell generate agrawal --rows 12000 --seed 2 --function 0 --to 2 --change-at 50% --noise 0.1 \\
      --from 2026-01-01T00:00:00Z --every 1m --output stream.csv
  foretell generate recommendations --rows 4000 --output initial.csv
  deploy/drift/README.md shows how Foretell learns such a change, and deploy/recommendations/README.md how it recommends")]
pub(super) struct Generate {
    #[command(subcommand)]
    generator: Generator,
}

// A doc comment on a variant would replace the help of its struct.
#[derive(Subcommand)]
enum Generator {
    Agrawal(AgrawalTable),
    Recommendations(RecommendationsTable),
}

/// Loan applicants in two groups, by one of ten functions, and after a change by another.
///
/// Each applicant has nine attributes (salary, commission, age, elevel, car, zipcode, hvalue, hyears, loan) and is in group A or
/// B. The functions use few of the attributes: 0 uses the age alone, 1 age and salary, 2 age and elevel. They are those of
/// Agrawal, Imielinski and Swami ("Database Mining: A Performance Perspective", 1993), numbered as in MOA. A change of the
/// function changes the labels, and nothing in the attributes.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell generate agrawal --rows 10000 --function 0 --to 2 --change-at 6000             abrupt
  foretell generate agrawal --rows 10000 --function 0 --to 2 --change-at 6000 --width 20%  gradual")]
struct AgrawalTable {
    /// The function that decides the group: 0 to 9.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..i64::from(agrawal::FUNCTIONS)))]
    function: u8,
    /// The function that takes its place. Unset: none does.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..i64::from(agrawal::FUNCTIONS)))]
    to: Option<u8>,
    /// Where it does: a number of rows, or a share of them such as `50%`. Of a gradual change, it is the middle.
    #[arg(long, value_name = "ROWS|SHARE", default_value = "50%", value_parser = amount, requires = "to")]
    change_at: Amount,
    /// Width of the change, a number of rows or a share of them: the share of the new function is 2% at one width before the
    /// middle of the change, and 98% at one width after it. 0: the change is abrupt.
    #[arg(long, value_name = "ROWS|SHARE", default_value = "0", value_parser = amount, requires = "to")]
    width: Amount,
    /// Share of the rows whose label is wrong: 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = numbers::share, allow_negative_numbers = true)]
    noise: f64,
    #[command(flatten)]
    table: TableArgs,
}

/// Items that a shop shows to its visitors, who ignore, like, put into the basket or buy them.
///
/// Each row is an item that was shown (category, price, position) to a visitor (visitor_id, device, local_hour, past_purchases,
/// dwell_seconds). The column outcome is what the visitor has done in the end: ignored, liked, basket or bought. outcomes has the
/// steps to it with their times, such as `liked after 725s; bought after 3010s`, and outcomes_if_acted the steps if the visitor
/// gets an offer. p_ignored, p_liked, p_basket and p_bought are the true probabilities of the outcome without an offer. A third of
/// the visitors comes back, 2,400 rows later.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell generate recommendations --rows 5
  foretell generate recommendations --rows 12000 --seed 2 --from 2026-01-01T00:00:00Z --every 6s --output stream.csv")]
struct RecommendationsTable {
    /// Probability that an offer makes a visitor buy who would not have bought and can be persuaded (past_purchases of at least
    /// 1, and a price of at least 25): 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, value_parser = numbers::share, allow_negative_numbers = true)]
    lift: f64,
    #[command(flatten)]
    table: TableArgs,
}

/// The options of every generator.
#[derive(Args)]
struct TableArgs {
    /// Number of rows.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Random seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Event time of the first row, such as `2026-01-01T00:00:00Z`. Unset: the table has no event times.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Duration>,
    /// Time between two rows, such as `500ms` or `1m`.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration, requires = "from")]
    every: Duration,
    /// The file to write. Unset: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, requires = "output")]
    force: bool,
}

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Rows(u64),
    /// Of all rows, from 0 to 1.
    Share(f64),
}

fn amount(text: &str) -> Result<Amount, String> {
    let share = text.strip_suffix('%').map(str::parse::<f64>);
    match (share, text.parse()) {
        (Some(Ok(percent)), _) if (0.0..=100.0).contains(&percent) => {
            Ok(Amount::Share(percent / 100.0))
        }
        (None, Ok(rows)) => Ok(Amount::Rows(rows)),
        (Some(_), _) | (None, Err(_)) => {
            Err("it must be a number of rows, such as 6000, or a share of 0% to 100%".to_owned())
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    parsed.map_err(|_| "it must be a duration, such as 500ms, 30s or 2m".to_owned())
}

/// A time, since 1970.
fn time(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_rfc3339_weak(text).ok();
    let since: Option<Duration> =
        parsed.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    since.ok_or_else(|| "it must be a time from 1970 on, such as 2026-01-01T00:00:00Z".to_owned())
}

impl Amount {
    fn of(self, rows: u64) -> u64 {
        match self {
            Self::Rows(rows) => rows,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of 0 to 1 of the rows"
            )]
            Self::Share(share) => (rows as f64 * share).round() as u64,
        }
    }
}

impl Generate {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        global.log("warn")?;
        match &self.generator {
            Generator::Agrawal(table) => table.write()?,
            Generator::Recommendations(table) => table.write()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl AgrawalTable {
    fn write(&self) -> anyhow::Result<()> {
        let function = |number| Function::new(number).expect("clap has checked the range");
        let change = self.to.map(|to| {
            let rows = self.table.rows;
            let (at, width) = (self.change_at.of(rows), self.width.of(rows));
            (function(to), ConceptChange { at, width })
        });
        let settings = agrawal::Settings {
            seed: self.table.seed,
            function: function(self.function),
            change,
            noise: self.noise,
        };
        let columns = [agrawal::ID, agrawal::LABEL];
        self.table.write(columns, &agrawal::COLUMNS, Agrawal::new(settings))
    }
}

impl RecommendationsTable {
    fn write(&self) -> anyhow::Result<()> {
        let settings = recommendations::Settings { seed: self.table.seed, lift: self.lift };
        let columns = [recommendations::ID, recommendations::LABEL];
        self.table.write(columns, &recommendations::COLUMNS, Recommendations::new(settings))
    }
}

impl TableArgs {
    /// Writes the rows to the file or to standard output.
    fn write(
        &self,
        [id, label]: [&str; 2],
        columns: &[&str],
        rows: impl Iterator<Item = Row>,
    ) -> anyhow::Result<()> {
        let times = self.from.map(|from| EventTimes { from, every: self.every });
        let (seed, number) = (self.seed, self.rows);
        let table = Table { id, columns, label, seed, number, times, rows };
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let mut progress = Progress::new();
        // Rows on a terminal show the progress themselves.
        let is_shown = self.output.is_some() || !io::stdout().is_terminal();
        let mut show = |rows: u64| {
            if is_shown {
                progress.bar("writing", number).set_position(rows);
            }
        };
        let written = match &self.output {
            Some(path) => generate::write_file(path, self.force, |to| {
                generate::write(table, to, &shutdown, &mut show)
            }),
            None => {
                let mut output = io::stdout().lock();
                let written = generate::write(table, &mut output, &shutdown, &mut show);
                // The reader may take the first rows only, as `head` does.
                written.or_else(|error| if is_closed(&error) { Ok(()) } else { Err(error) })
            }
        };
        progress.finish();
        written
    }
}

/// Whether the reader of standard output has closed it.
fn is_closed(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_number_of_rows_or_a_share_of_them() {
        let check = |text: &str, expected| {
            assert_eq!(amount(text).ok().map(|amount| amount.of(1_000)), expected, "{text}");
        };
        check("0", Some(0));
        check("600", Some(600));
        check("50%", Some(500));
        check("0.1%", Some(1));
        check("100%", Some(1_000));
        for wrong in ["", "-1", "0.5", "101%", "%", "NaN%", "half"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_time_is_from_1970_on() {
        assert_eq!(time("1970-01-01T00:01:00Z"), Ok(Duration::from_secs(60)));
        assert_eq!(time("2026-01-01 00:00:00"), time("2026-01-01T00:00:00Z"));
        for wrong in ["1969-12-31T23:59:59Z", "tomorrow", "2026-01-01"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
