//! `foretell serve`: scores by the files of a model alone, without a broker or a registry, as SageMaker runs an endpoint.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    app::{
        http_server::{BoundServer, HttpServer},
        library::files,
        open_files, telemetry,
    },
    config::Config,
};
use foretell_ml::{ModelVersion, Scorer, export};

/// The folder of SageMaker's root with the model, where a training job has written it.
pub const MODEL_FOLDER: &str = "model";

/// The folder with the model: `model` in `root`, or else `root` itself.
///
/// # Errors
/// If there is none.
pub fn model_folder(root: &Path) -> anyhow::Result<PathBuf> {
    let inside = root.join(MODEL_FOLDER);
    let folder = if inside.is_dir() { inside } else { root.to_owned() };
    anyhow::ensure!(
        folder.join(export::MODEL_FILE).is_file(),
        "there is no {} in {}: name a folder that `foretell train` or `foretell models export` has written (--root)",
        export::MODEL_FILE,
        folder.display(),
    );
    Ok(folder)
}

/// A model that serves.
pub struct StandaloneModel {
    /// The address of the HTTP server.
    pub address: SocketAddr,
    /// The version of the model.
    pub version: ModelVersion,
    http: HttpServer,
}

impl StandaloneModel {
    /// Loads the model in `folder`, then listens on `bind`. Anybody who can connect gets a score.
    ///
    /// # Errors
    /// If the files are not a model, the model does not fit the configuration, or the address is taken.
    pub fn start(config: &Config, folder: &Path, bind: &str) -> anyhow::Result<Self> {
        let serving = &config.serving;
        anyhow::ensure!(
            !serving.journal,
            "{}: a model alone has no stream to write to: set [serving] journal to false",
            config.sources.of("serving.journal"),
        );
        anyhow::ensure!(
            serving.enabled,
            "{}: a model alone serves nothing but these protocols: set [serving] enabled to true",
            config.sources.of("serving.enabled"),
        );
        open_files::raise_for(config.http.connections_max);
        let bundle = files::read(config, &[folder.to_owned()])?;
        if bundle.lineage.imported && folder.join(export::LINEAGE_FILE).is_file() {
            tracing::warn!(
                "the files are not those of one export: the model is served as one that was trained elsewhere"
            );
        }
        let (scorer, version) = (Scorer::new(&bundle)?, bundle.version());
        let registry = telemetry::metrics_registry()?;
        let server = BoundServer::bind_model(bind)?;
        let address = server.address;
        let http = server.serve_model(config, scorer, &registry)?;
        Ok(Self { address, version, http })
    }

    /// Completes open requests and stops, within 10 s.
    ///
    /// # Errors
    /// If the server has panicked.
    pub fn stop(self) -> anyhow::Result<()> {
        self.http.stop()
    }
}
