//! `foretell doctor`

use std::process::ExitCode;

use clap::Args;

use crate::{
    app::{
        check_result::{CheckResult, Report},
        doctor,
    },
    cli::{Global, Sets, progress},
    config::Config,
};

/// Looks at everything that a start needs, and says what to fix: the configuration, the broker (TLS, passwords,
/// limits, rights), transactions, topics, groups and their lag, the registry and its schemas, the model, the
/// HTTP address.
///
/// One line a check: `ok`, `warning` (it works, but see to it; or it could not be looked at) or `FAILED`, with
/// what to do. It ends with 0 if nothing failed, with 1 if something did. It changes nothing: it makes no topics,
/// no groups and no schemas, and writes no records (so whether it may write to a topic, it can't tell). The
/// broker remembers one transactional id, `<application>-doctor`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell doctor                                   before the first `init`, and whenever something is odd
  foretell doctor --json | jq '.checks[] | select(.status != \"ok\")'
  foretell doctor --set broker.bootstrap_servers=kafka:9093 --set broker.properties.security.protocol=SSL")]
pub(super) struct Doctor {
    /// Prints one JSON object on standard output, and nothing else there.
    ///
    /// It is `{"ok": …, "checks": [{"name", "status", "detail", "fix"}]}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Doctor {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        // What librdkafka complains of is told by a finding.
        global.log("error,librdkafka=off")?;
        let mut tell = |finding: &CheckResult| {
            if !self.json {
                print(&finding.to_string());
            }
        };
        let report = match Config::load(&global.config, &global.sets) {
            Ok(config) => doctor::examine(&config, &mut tell),
            Err(error) => {
                let finding = doctor::unreadable(progress::one_line(&error.into()));
                tell(&finding);
                Report::of(vec![finding])
            }
        };
        if self.json {
            print(&serde_json::to_string(&report)?);
        } else {
            print(&report.to_string());
        }
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print(line: &str) {
    println!("{line}");
}
