//! The command line: one file per command. Only this module prints.

mod action_table;
mod browser;
mod class_table;
mod dead_letters;
mod deliver;
mod demo;
mod doctor;
mod generate;
mod init;
mod learner_command;
mod model_text;
mod models;
mod new;
mod numbers;
mod progress;
mod replay;
mod retrain;
mod run;
mod schema;
mod send;
mod serve;
mod train;
mod tune;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use anyhow::Context;
use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::ErrorKind, parser::ValueSource,
};

use crate::{
    app::telemetry::{self, LogFilter, LogFormat},
    config::Config,
};

/// Score now, learn from what happens: real-time machine learning on Kafka.
///
/// Foretell reads Avro events from Kafka or Redpanda, scores each one as it arrives, and publishes the prediction. It
/// joins the prediction with the outcome, which comes later, learns from such examples, and replaces its model while
/// it runs. You write a `foretell.toml` and an Avro schema of your events, or `foretell new` makes them from a CSV file.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
    // Two arguments, before and after the command: of one global argument, clap would drop the values before the command.
    /// Set a key of the configuration, such as `broker.bootstrap_servers=kafka:9092`; repeatable.
    #[arg(id = "sets before the command", long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

/// `--set` after the command.
#[derive(Args)]
struct Sets {
    /// Set a key of the configuration, such as `broker.bootstrap_servers=kafka:9092`; repeatable.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  foretell new visits.csv --label outcome        make an application from a CSV file
  foretell demo -c deploy/adult/foretell.toml    run everything in one process, without a broker
  foretell doctor                                check the configuration, the broker, the registry
  foretell init                                  create topics, register schemas, train a model
  foretell run                                   score and learn until Ctrl-C
  foretell deliver                               send actions to webhooks and by e-mail
  foretell send --rate 50                        send a table as live events, show predictions
  foretell serve --root ./exported               score by the files of a model, without a broker
  foretell train --root ./job                    train a model of tables, without a broker
  foretell tune                                  compare ways to search for parameters
  foretell replay --variants variants.toml       run the history again with other settings
  foretell dead-letters list                     show records that could not be processed
  foretell models list                           list the models and their metrics
  foretell retrain --reason \"new prices\"        train a model now
  foretell schema check                          check schemas before you deploy them
  foretell generate agrawal --output rows.csv    write a made-up table

Environment variables and --set override keys of the configuration. A secret can be in a file:
  FORETELL_BROKER_BOOTSTRAP_SERVERS=kafka:9092 foretell run
  foretell run --set 'http.bearer_token={ file = \"/run/secrets/token\" }'
  foretell run --set streams.commit_interval=20ms --set http.connections_max=500";

#[derive(Args)]
struct Global {
    /// The configuration file. By default foretell.toml, for `train` and `serve` that of the root.
    #[arg(
        short,
        long,
        global = true,
        env = "FORETELL_CONFIG",
        default_value = "foretell.toml",
        hide_default_value = true
    )]
    config: PathBuf,
    /// Values of `--set` before the command, then those after it.
    #[arg(skip)]
    sets: Vec<String>,
    /// Whether `config` is given, and not its default.
    #[arg(skip)]
    is_config_given: bool,
    /// Whether `config` is an argument.
    #[arg(skip)]
    is_config_argument: bool,
    /// Whether `log` comes from the environment.
    #[arg(skip)]
    is_log_from_environment: bool,
    /// Log filter for standard error: a level, or levels by target, such as `foretell=debug,librdkafka=warn`.
    #[arg(long, global = true, env = "FORETELL_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Format of log lines.
    #[arg(long, global = true, env = "FORETELL_LOG_FORMAT", value_enum, default_value_t)]
    log_format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

// A doc comment on a variant would replace the help of its struct.
#[derive(Subcommand)]
enum Command {
    New(new::New),
    Demo(demo::Demo),
    Init(init::Init),
    Run(run::Run),
    Deliver(deliver::Deliver),
    Send(send::Send),
    Serve(serve::Serve),
    Train(train::Train),
    Tune(tune::Tune),
    Replay(replay::Replay),
    Doctor(doctor::Doctor),
    DeadLetters(dead_letters::DeadLettersCommand),
    Models(models::ModelsCommand),
    Retrain(retrain::Retrain),
    Schema(schema::SchemaCommand),
    Generate(generate::Generate),
}

impl Command {
    /// The values of `--set`; none if it reads no configuration.
    fn sets(&self) -> Option<&[String]> {
        let sets = match self {
            Self::Demo(demo) => &demo.sets,
            Self::Init(init) => &init.sets,
            Self::Run(run) => &run.sets,
            Self::Deliver(deliver) => &deliver.sets,
            Self::Send(send) => &send.sets,
            Self::Serve(serve) => &serve.sets,
            Self::Train(train) => &train.sets,
            Self::Tune(tune) => &tune.sets,
            Self::Replay(replay) => &replay.sets,
            Self::Doctor(doctor) => &doctor.sets,
            Self::DeadLetters(letters) => letters.sets(),
            Self::Models(models) => models.sets(),
            Self::Retrain(retrain) => &retrain.sets,
            Self::Schema(schema) => schema.sets(),
            Self::Generate(_) | Self::New(_) => return None,
        };
        Some(&sets.sets)
    }
}

impl Cli {
    /// The parsed arguments, with `--set` from both sides of the command.
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Self::from_arg_matches(matches)?;
        let config = matches.value_source("config");
        cli.global.is_config_argument = config == Some(ValueSource::CommandLine);
        match cli.command.sets() {
            Some(sets) => cli.global.sets = cli.sets.iter().chain(sets).cloned().collect(),
            None => {
                cli.check_without_configuration(matches.subcommand_name().unwrap_or_default())?;
            }
        }
        cli.global.is_config_given =
            config.is_some_and(|source| source != ValueSource::DefaultValue);
        cli.global.is_log_from_environment =
            matches.value_source("log") == Some(ValueSource::EnvVariable);
        Ok(cli)
    }

    /// Refuses the arguments that set a configuration, for a command that reads none.
    fn check_without_configuration(&self, command: &str) -> Result<(), clap::Error> {
        let argument = match (self.global.is_config_argument, self.sets.is_empty()) {
            (true, _) => "--config",
            (false, false) => "--set",
            (false, true) => return Ok(()),
        };
        let message = format!("`foretell {command}` reads no configuration: leave out {argument}");
        Err(Self::command().error(ErrorKind::ArgumentConflict, message))
    }
}

impl Global {
    /// Starts logging, and loads the configuration.
    fn start(&self, default_log: &str) -> anyhow::Result<Config> {
        self.log(default_log)?;
        Ok(Config::load(&self.config, &self.sets)?)
    }

    /// The configuration file, if one is named.
    fn given_config(&self) -> Option<&Path> {
        self.is_config_given.then_some(self.config.as_path())
    }

    fn log(&self, default_log: &str) -> anyhow::Result<()> {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        // An empty variable counts as not set.
        let wanted = self.log.as_deref().filter(|filter| !filter.trim().is_empty());
        let source = if self.is_log_from_environment { "FORETELL_LOG" } else { "--log" };
        let filter = LogFilter::parse(wanted.unwrap_or(default_log)).context(source)?;
        telemetry::log_to_stderr(filter, format);
        Ok(())
    }
}

/// Runs the command in the arguments of the process. An error is one line on standard error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::of(&Cli::command().get_matches()).unwrap_or_else(|error| error.exit());
    let result = match &cli.command {
        Command::New(new) => new.run(&cli.global),
        Command::Demo(demo) => demo.run(&cli.global),
        Command::Init(init) => init.run(&cli.global),
        Command::Run(run) => run.run(&cli.global),
        Command::Deliver(deliver) => deliver.run(&cli.global),
        Command::Send(send) => send.run(&cli.global),
        Command::Serve(serve) => serve.run(&cli.global),
        Command::Train(train) => train.run(&cli.global),
        Command::Tune(tune) => tune.run(&cli.global),
        Command::Replay(replay) => replay.run(&cli.global),
        Command::Doctor(doctor) => doctor.run(&cli.global),
        Command::DeadLetters(letters) => letters.run(&cli.global),
        Command::Models(models) => models.run(&cli.global),
        Command::Retrain(retrain) => retrain.run(&cli.global),
        Command::Schema(schema) => schema.run(&cli.global),
        Command::Generate(generate) => generate.run(&cli.global),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            progress::fail(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints the result of a command, or a line of it, on standard output. If its reader has closed it, as `head` does, or it is
/// full, the process ends.
#[expect(clippy::print_stderr, reason = "standard output cannot be written")]
fn print(text: &str) {
    let Err(error) = writeln!(io::stdout().lock(), "{text}") else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        process::exit(0);
    }
    eprintln!("error: cannot write to standard output: {error}");
    process::exit(1);
}

/// The rows of a table, with columns of one width; the first is aligned left, the others right.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(number, (cell, width))| {
            if number == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<String>>().join("  ")
    };
    table.iter().map(line).collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table = [row(["sampler", "1", "10"]), row(["gp", "0.27", "-"])];
        assert_eq!(aligned(&table), "sampler     1  10\ngp       0.27   -");
    }

    #[test]
    fn the_definition_of_arguments_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_without_a_configuration_refuse_its_arguments() {
        let refused = |line: &str| {
            let found = Cli::of(&Cli::command().get_matches_from(line.split(' ')));
            found.err().map(|error| error.to_string())
        };
        for command in ["new rows.csv", "generate agrawal --output rows.csv"] {
            let name = command.split(' ').next().unwrap();
            for (line, argument) in [
                (format!("foretell -c app.toml {command}"), "--config"),
                (format!("foretell {command} --config app.toml"), "--config"),
                (format!("foretell --set a=1 {command}"), "--set"),
            ] {
                let words =
                    format!("`foretell {name}` reads no configuration: leave out {argument}");
                let error = refused(&line).unwrap();
                assert!(error.contains(&words), "{line}: {error}");
            }
            assert_eq!(refused(&format!("foretell {command}")), None);
        }
        assert_eq!(refused("foretell run -c app.toml"), None);
    }

    #[test]
    fn keys_can_be_set_before_and_after_the_command() {
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
