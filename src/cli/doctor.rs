//! `foretell doctor`

use std::process::ExitCode;

use clap::Args;

use crate::{
    app::{
        check_result::{CheckResult, Report},
        doctor,
    },
    cli::{Global, Sets, print, progress},
    config::Config,
};

/// Check everything that `foretell run` needs, and say what to fix.
///
/// The checks are of the configuration, the broker (TLS, credentials, limits, rights), transactions, topics, consumer
/// groups and their lag, the registry and its schemas, the model, and the HTTP address.
///
/// Each check prints one line: `ok`, `warning` (it works, but needs attention; or it could not be checked) or `FAILED`,
/// with what was found and what to do. The command ends with 0 if nothing failed, else with 1. It changes nothing: no
/// topic, group, schema or record. So it cannot check the right to write to a topic. The broker keeps one transactional
/// id, `<application>-doctor`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell doctor                     before the first `init`, and whenever something does not work
  foretell doctor --json | jq '.checks[] | select(.status != \"ok\")'
  foretell doctor --set broker.bootstrap_servers=kafka:9093 \\
      --set broker.properties.security.protocol=SSL")]
pub(super) struct Doctor {
    /// Print one JSON object on standard output, and nothing else.
    ///
    /// Its form is `{"ok": …, "checks": [{"name", "status", "detail", "fix"}]}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Doctor {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        // Problems of librdkafka are in the check results.
        global.log("error,librdkafka=off")?;
        let mut show = |result: &CheckResult| {
            if !self.json {
                print(&result.to_string());
            }
        };
        let report = match Config::load(&global.config, &global.sets) {
            Ok(config) => doctor::examine(&config, &mut show),
            Err(error) => {
                let failed = doctor::invalid_configuration(progress::one_line(&error.into()));
                show(&failed);
                Report::of(vec![failed])
            }
        };
        print(&if self.json { serde_json::to_string(&report)? } else { report.to_string() });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
