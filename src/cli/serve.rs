//! `foretell serve`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    app::{
        serve::{self, StandaloneModel},
        shutdown::{self, Shutdown},
    },
    cli::{Global, Sets},
    config::Config,
};

/// Score over HTTP by the files of a model alone, as SageMaker runs an endpoint.
///
/// It needs no broker and no registry: only a folder that `foretell train` or `foretell models export` has written. It
/// serves /invocations and /ping (SageMaker, MLflow), the Open Inference Protocol, /metrics, /livez and /readyz, on all
/// interfaces. Set http.bearer_token, or listen on this machine only with --host 127.0.0.1, if others can reach it.
///
/// SageMaker runs this command of the image, with the model in /opt/ml/model.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell serve --root ./exported            a model of `foretell models export`
  foretell serve --root ./exported --host 127.0.0.1 --port 9000
  foretell serve                              in SageMaker, the model of a training job")]
pub(super) struct Serve {
    /// The folder of the model, or one with the folder `model` in it.
    #[arg(long, value_name = "DIR", default_value = "/opt/ml")]
    root: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    host: String,
    /// Port to listen on; 0 chooses a free one.
    #[arg(long, env = "SAGEMAKER_BIND_TO_PORT", default_value_t = 8080)]
    port: u16,
    #[command(flatten)]
    pub(super) sets: Sets,
}

impl Serve {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        global.log("info")?;
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let sets_bind =
            |set: &String| set.split_once('=').is_some_and(|(key, _)| key.trim() == "http.bind");
        anyhow::ensure!(
            !global.sets.iter().any(sets_bind),
            "--set http.bind: it has no effect here: use --host and --port"
        );
        let folder = serve::model_folder(&self.root)?;
        let beside = folder.join("foretell.toml");
        anyhow::ensure!(
            global.given_config().is_some() || beside.is_file() || global.config.is_file(),
            "there is no foretell.toml in {}, nor in the working directory: name one with --config",
            folder.display()
        );
        let config = match global.given_config() {
            None if beside.is_file() => beside,
            None | Some(_) => global.config.clone(),
        };
        let config = Config::load(&config, &global.sets)?;
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let served = StandaloneModel::start(&config, &folder, &format!("{host}:{}", self.port))?;
        tracing::info!(address = %served.address, version = %served.version, "serving");
        let reason = shutdown.wait_until_asked();
        tracing::info!(?reason, "stopping");
        served.stop()?;
        Ok(ExitCode::SUCCESS)
    }
}
