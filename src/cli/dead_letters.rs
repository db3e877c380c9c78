//! `foretell dead-letters`

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use humantime_serde::re::humantime;

use crate::{
    app::{self, cluster::Cluster, times},
    cli::{Global, Sets, aligned, numbers, print, progress::Progress},
    config::Config,
    processors::dead_letters::{DeadLetters, LetterId, LetterSummary, Listing, Replayed, Wanted},
};

/// List, show and replay records that could not be processed.
///
/// A record that cannot be used goes to the topic `dead-letters` with the reason, and processing goes on. After the
/// cause is mended, a replay sends such records to their topics again, with their own keys, headers and partitions.
/// Each dead letter is replayed once, also if several people ask: it stays in the topic, and a mark after it says that it
/// was replayed.
///
/// With `foretell demo` and `foretell run --embedded` there is no broker to connect to: use the dashboard, or the HTTP API,
/// /api/v1/dead-letters.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell dead-letters list
  foretell dead-letters list --class late_outcome --since 1d --json
  foretell dead-letters show 3:1042
  foretell dead-letters replay --class unknown_schema --dry-run
  foretell dead-letters replay 3:1042 3:1043")]
pub(super) struct DeadLettersCommand {
    #[command(subcommand)]
    action: Action,
}

// A doc comment on a variant would replace the help of its struct.
#[derive(Subcommand)]
enum Action {
    List(List),
    Show(Show),
    Replay(Replay),
}

/// Which dead letters.
#[derive(Args)]
struct Filter {
    /// Only of this class, such as `late_outcome`; repeatable. One that this release does not write is an error: name letters of
    /// other releases by their ids.
    #[arg(long = "class", value_name = "CLASS")]
    classes: Vec<String>,
    /// Only records of this topic, by its full name; repeatable.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only those written at this time or later: `2026-11-01T12:00:00Z`, or a span before now such as `7d`.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// List the newest dead letters, and count them by class.
#[derive(Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// Number of dead letters to list, up to 1000.
    #[arg(long, default_value_t = 20, value_parser = numbers::at_least_one, allow_negative_numbers = true)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

/// Show one dead letter as JSON: its record with the value decoded, and why it could not be processed.
#[derive(Args)]
struct Show {
    /// The dead letter, as `partition:offset`.
    id: LetterId,
    #[command(flatten)]
    sets: Sets,
}

/// Send the records of dead letters to their topics again, each once.
///
/// Mend the cause first: a record that still cannot be processed becomes a dead letter again. It ends with 1 if a dead
/// letter cannot be replayed, for example because its value was too large to be kept.
#[derive(Args)]
struct Replay {
    /// Dead letters, as `partition:offset`.
    #[arg(value_name = "ID")]
    ids: Vec<LetterId>,
    #[command(flatten)]
    filter: Filter,
    /// Replay all of them, if neither an id nor a filter is given.
    #[arg(long)]
    all: bool,
    /// Count what would be replayed, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: Sets,
}

impl DeadLettersCommand {
    pub(super) fn sets(&self) -> &Sets {
        match &self.action {
            Action::List(list) => &list.sets,
            Action::Show(show) => &show.sets,
            Action::Replay(replay) => &replay.sets,
        }
    }

    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("warn,librdkafka=off")?;
        // Before a broker is asked, which may take long.
        let wanted = match &self.action {
            Action::List(list) => list.filter.wanted(&[])?,
            Action::Show(_) => Wanted::default(),
            Action::Replay(replay) => replay.wanted(&config)?,
        };
        if let Some(unknown) = wanted.unknown_class() {
            return Err(anyhow::Error::new(unknown).context("--class"));
        }
        let clock = app::clock();
        let cluster = Cluster::connect(&config, &clock)?;
        let letters = cluster.dead_letters(&config, &clock);
        let exists = cluster.broker.partitions(&letters.topic)?.is_some();
        anyhow::ensure!(
            exists,
            "topic {} does not exist: run `foretell init` first",
            letters.topic
        );
        match &self.action {
            Action::List(list) => list.run(&letters, &wanted),
            Action::Show(show) => show.run(&letters),
            Action::Replay(replay) => replay.run(&letters, &wanted),
        }
    }
}

impl Filter {
    fn wanted(&self, ids: &[LetterId]) -> anyhow::Result<Wanted> {
        let clock = app::clock();
        let since = self.since.as_deref().map(|text| times::since(text, &clock).context("--since"));
        Ok(Wanted {
            ids: ids.to_vec(),
            classes: self.classes.clone(),
            topics: self.topics.clone(),
            since: since.transpose()?.flatten(),
        })
    }
}

impl List {
    fn run(&self, letters: &DeadLetters, wanted: &Wanted) -> anyhow::Result<ExitCode> {
        let listing = letters.list(wanted, self.limit)?;
        print(&if self.json { serde_json::to_string(&listing)? } else { text(&listing) });
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self, letters: &DeadLetters) -> anyhow::Result<ExitCode> {
        let shown = letters.show(self.id)?.with_context(|| {
            format!(
                "there is no dead letter {} on topic {}: `foretell dead-letters list` shows the newest",
                self.id, letters.topic
            )
        })?;
        print(&serde_json::to_string_pretty(&shown)?);
        Ok(ExitCode::SUCCESS)
    }
}

impl Replay {
    fn wanted(&self, config: &Config) -> anyhow::Result<Wanted> {
        let wanted = self.filter.wanted(&self.ids)?;
        anyhow::ensure!(
            self.all || !wanted.is_everything(),
            "say which: ids, --class, --topic or --since, or --all for every dead letter of {}",
            config.topics.dead_letters
        );
        Ok(wanted)
    }

    fn run(&self, letters: &DeadLetters, wanted: &Wanted) -> anyhow::Result<ExitCode> {
        let mut shown = Progress::new();
        let mut progress = |done: u64, of: u64| shown.bar("replaying", of).set_position(done);
        let replayed = letters.replay(wanted, self.dry_run, &mut progress);
        shown.finish();
        let replayed = replayed?;
        print(&if self.json {
            serde_json::to_string(&replayed)?
        } else {
            summary(&replayed, self.dry_run)
        });
        let is_all = replayed.kept.is_empty() && replayed.missing.is_empty();
        Ok(if is_all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Width of a message in the table on a terminal; elsewhere it is shown whole.
const MESSAGE_MAX: usize = 80;

fn text(listing: &Listing) -> String {
    if listing.classes.is_empty() {
        return "there are no dead letters".to_owned();
    }
    let mut table = vec![["class", "letters", "replayed"].map(str::to_owned).to_vec()];
    for (class, count) in &listing.classes {
        table.push(vec![class.clone(), count.letters.to_string(), count.replayed.to_string()]);
    }
    let is_short = std::io::stdout().is_terminal();
    let lines = listing.letters.iter().map(|letter| line(letter, is_short));
    let lines: Vec<String> = lines.collect();
    format!("{}\n\nnewest first:\n{}", aligned(&table), lines.join("\n"))
}

fn line(letter: &LetterSummary, is_short: bool) -> String {
    let millis = u64::try_from(letter.written_at.0).unwrap_or(0);
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(millis));
    let message: String = if is_short && letter.message.chars().count() > MESSAGE_MAX {
        letter.message.chars().take(MESSAGE_MAX).chain(['…']).collect()
    } else {
        letter.message.clone()
    };
    let replayed = if letter.replayed { "  (replayed)" } else { "" };
    let place = if letter.offset < 0 {
        format!("an output to {}", letter.topic)
    } else {
        format!("{}/{}@{}", letter.topic, letter.partition, letter.offset)
    };
    let key = letter.key.as_deref().unwrap_or("no key");
    format!(
        "{:<8} {time}  {}  {place}  {key}: {message}{replayed}",
        letter.id.to_string(),
        letter.class
    )
}

fn summary(replayed: &Replayed, is_rehearsal: bool) -> String {
    let did = if is_rehearsal { "would be replayed" } else { "replayed" };
    let mut lines = Vec::new();
    for (topic, number) in &replayed.replayed {
        lines.push(format!("{number} {did} to {topic}"));
    }
    if replayed.replayed.is_empty() {
        lines.push(format!("none {did}"));
    }
    if replayed.before > 0 {
        lines.push(format!("{} were replayed before", replayed.before));
    }
    for (reason, number) in &replayed.kept {
        lines.push(format!("{number} cannot be replayed: {reason}"));
    }
    for id in &replayed.missing {
        lines.push(format!("there is no dead letter {id} among those that are wanted"));
    }
    if replayed.more {
        lines.push("there are more: run it again".to_owned());
    }
    lines.join("\n")
}
