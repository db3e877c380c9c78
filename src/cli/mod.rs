//! The command line: one file a command, and the only place that prints.

mod demo;
mod doctor;
mod init;
mod numbers;
mod progress;
mod run;
mod schema;
mod send;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};

use crate::{
    app::telemetry::{self, LogFilter, LogFormat},
    config::Config,
};

/// Score now, learn from what happens: real-time machine learning on Kafka.
///
/// Foretell reads Avro events, scores each the moment it arrives, publishes the prediction, waits for the
/// true outcome, joins the two, and retrains and swaps its model without ever pausing. A `foretell.toml`
/// and an Avro schema say all that is yours.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
    // Before the command and after it are two arguments: of a global one, clap would keep only the latter's values.
    /// Sets a key of the configuration, such as `broker.bootstrap_servers=kafka:9092`; repeatable.
    #[arg(id = "sets before the command", long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

/// What may be said of a key after the command.
#[derive(Args)]
struct Sets {
    /// Sets a key of the configuration, such as `broker.bootstrap_servers=kafka:9092`; repeatable.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  foretell demo --config deploy/adult/foretell.toml    the whole loop in one process, no broker needed
  foretell init                                        topics, schemas, and a first model, tuned
  foretell run                                         score and learn, until Ctrl-C
  foretell send --rate 50                              play a table as live events, show what comes back
  foretell doctor                                      is everything there, and may we use it? what to fix
  foretell schema check                                may these schemas be deployed? also register, diff, evolve

Keys can be set from outside, the last one winning; a secret may also be { file = \"/run/secrets/x\" }:
  FORETELL_BROKER_BOOTSTRAP_SERVERS=kafka:9092 foretell run
  foretell run --set streams.commit_interval=20ms --set http.bind=0.0.0.0:8000";

#[derive(Args)]
struct Global {
    /// The configuration.
    #[arg(short, long, global = true, env = "FORETELL_CONFIG", default_value = "foretell.toml")]
    config: PathBuf,
    /// From before the command and after it, in this order.
    #[arg(skip)]
    sets: Vec<String>,
    /// Whether the filter is that of the environment.
    #[arg(skip)]
    is_log_from_environment: bool,
    /// What to log to standard error, such as `info`, or `foretell=debug,librdkafka=warn`.
    #[arg(long, global = true, env = "FORETELL_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, env = "FORETELL_LOG_FORMAT", value_enum, default_value_t)]
    log_format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the whole loop in this process, with a broker of its own, and checks what came of it.
    Demo(demo::Demo),
    /// Makes what is missing: topics, schemas, the training log's head, and a first model, tuned.
    Init(init::Init),
    /// Scores and learns until it is told to stop (Ctrl-C, SIGTERM).
    Run(run::Run),
    /// Plays a table as live events and delayed outcomes, and shows the predictions that come back.
    Send(send::Send),
    /// Looks at everything that a start needs, and says what to fix; it changes nothing.
    Doctor(doctor::Doctor),
    Schema(schema::SchemaCommand),
}

impl Command {
    fn sets(&self) -> &Sets {
        match self {
            Self::Demo(demo) => &demo.sets,
            Self::Init(init) => &init.sets,
            Self::Run(run) => &run.sets,
            Self::Send(send) => &send.sets,
            Self::Doctor(doctor) => &doctor.sets,
            Self::Schema(schema) => schema.sets(),
        }
    }
}

impl Cli {
    /// What was parsed, with what stands on both sides of the command, and where it came from.
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Self::from_arg_matches(matches)?;
        cli.global.sets = cli.sets.iter().chain(&cli.command.sets().sets).cloned().collect();
        cli.global.is_log_from_environment =
            matches.value_source("log") == Some(ValueSource::EnvVariable);
        Ok(cli)
    }
}

impl Global {
    /// Logs from here on, then reads the configuration.
    fn start(&self, default_log: &str) -> anyhow::Result<Config> {
        self.log(default_log)?;
        Ok(Config::load(&self.config, &self.sets)?)
    }

    fn log(&self, default_log: &str) -> anyhow::Result<()> {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        // An empty variable is one that is not set.
        let wanted = self.log.as_deref().filter(|filter| !filter.trim().is_empty());
        let source = if self.is_log_from_environment { "FORETELL_LOG" } else { "--log" };
        let filter = LogFilter::parse(wanted.unwrap_or(default_log)).context(source)?;
        telemetry::log_to_stderr(filter, format);
        Ok(())
    }
}

/// Runs the command of the process's arguments. What goes wrong is one line on standard error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::of(&Cli::command().get_matches()).unwrap_or_else(|error| error.exit());
    let result = match &cli.command {
        Command::Demo(demo) => demo.run(&cli.global),
        Command::Init(init) => init.run(&cli.global),
        Command::Run(run) => run.run(&cli.global),
        Command::Send(send) => send.run(&cli.global),
        Command::Doctor(doctor) => doctor.run(&cli.global),
        Command::Schema(schema) => schema.run(&cli.global),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            progress::fail(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn keys_are_set_before_and_after_the_command() {
        let check = |line: &str, expected: &[&str]| {
            let cli = Cli::of(&Cli::command().get_matches_from(line.split(' '))).unwrap();
            assert_eq!(cli.global.sets, expected, "{line}");
        };
        check("foretell run", &[]);
        check("foretell --set a=1 run", &["a=1"]);
        check("foretell run --set b=2 --set c=3", &["b=2", "c=3"]);
        check("foretell --set a=1 --set a=2 run --embedded --set b=3", &["a=1", "a=2", "b=3"]);
    }
}
