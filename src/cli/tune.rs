//! `foretell tune`

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use crate::{
    app::{
        self,
        cluster::Cluster,
        shutdown::{self, Shutdown},
        tune::{self, Comparison, TuneRequest},
    },
    cli::{Global, Sets, aligned, numbers, print, progress::Progress},
};
use foretell_ml::training::SamplerKind;

/// Compare samplers: search for parameters of the model with each, on the same data and folds.
///
/// It needs no broker: each sampler runs a study of its own on the table in [data.initial], with the settings of tuning
/// and tuning.space, and nothing is written. The result is a table of the best value by number of trials, and the best
/// parameters. Take the sampler that is best after as many trials as you can afford, and set it as tuning.sampler; if
/// `random` is as good as the others, the parameters in the space matter little.
///
/// A study is a matter of luck: compare with several seeds before you conclude from a small difference. Ctrl-C ends the
/// comparison and shows what was found.
#[derive(Args)]
#[command(after_help = "\
Examples:
  foretell tune
  foretell tune --samplers tpe,gp,random --trials 30 --seed 7 --html samplers.html
  foretell tune --samplers gp --set tuning.objective=auc --set tuning.time=10m
  foretell tune --set 'tuning.space.max_depth={ int = [3, 12] }' --set tuning.order=time
  foretell tune --samplers tpe --trials 200 --set tuning.time=1h --write
                                 the next study of `init` or of a retraining starts from these trials")]
pub(super) struct Tune {
    /// Samplers to compare, each once: tpe, gp, random.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "tpe,gp,random", value_parser = sampler)]
    samplers: Vec<SamplerKind>,
    /// Maximum number of trials of each sampler. Unset: tuning.trials. A study also ends after tuning.time.
    #[arg(long, value_name = "N", value_parser = numbers::at_least_one)]
    trials: Option<usize>,
    /// Random seed of folds, samplers and models. Unset: learning.seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write a page of HTML with the course of each study to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the trials to the topic `trials`, where they warm-start later studies. It needs the broker, and that
    /// `foretell init` has been run.
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    pub(super) sets: Sets,
}

fn sampler(name: &str) -> Result<SamplerKind, String> {
    let found = SamplerKind::ALL.into_iter().find(|sampler| sampler.name() == name.trim());
    found.ok_or_else(|| {
        let names: Vec<&str> = SamplerKind::ALL.iter().map(|sampler| sampler.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

impl Tune {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = global.start("warn,librdkafka=off")?;
        for (number, sampler) in self.samplers.iter().enumerate() {
            let is_repeated = self.samplers[..number].contains(sampler);
            anyhow::ensure!(!is_repeated, "--samplers: {} is repeated", sampler.name());
        }
        let clock = app::clock();
        let request = TuneRequest {
            samplers: self.samplers.clone(),
            trials: match self.trials {
                Some(trials) => u32::try_from(trials).context("--trials")?,
                None => config.tuning.study.trials,
            },
            seed: self.seed.unwrap_or(config.learning.seed),
        };
        if let Some(folder) = self.html.as_deref().and_then(|path| path.parent()) {
            let is_there = folder.as_os_str().is_empty() || folder.is_dir();
            anyhow::ensure!(is_there, "--html: there is no folder {}", folder.display());
        }
        let cluster = match self.write {
            true => Some(Cluster::connect(&config, &clock)?),
            false => None,
        };
        let shutdown = Shutdown::default();
        let _signals = shutdown::stop_when_asked(&shutdown)?;
        let mut progress = Progress::new();
        let compared =
            tune::compare(&config, &clock, &shutdown, cluster.as_ref(), &request, &mut progress);
        progress.finish();
        let compared = compared?;
        print(&summary(&compared));
        if let Some(path) = &self.html {
            fs::write(path, compared.page()?)
                .with_context(|| format!("--html: {}", path.display()))?;
            print(&format!("\nthe course of each study: {}", path.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(compared: &Comparison) -> String {
    let Some((study, best)) = compared.winner() else {
        return "no trial was finished: give it more time with --set tuning.time=10m".to_owned();
    };
    let failures = compared.studies.iter().flat_map(|study| &study.trials);
    let failure = failures.filter_map(|trial| trial.failure.as_ref()).next();
    let failure = failure.map_or(String::new(), |failure| {
        format!("\n\nLightGBM refused parameters of some trials: {failure}")
    });
    format!(
        "{}\n\n{}{failure}\n\nbest parameters: trial {} of {}, with {} trees\n  {}",
        compared.title(),
        aligned(&compared.table()),
        best.number,
        study.sampler.name(),
        best.iterations,
        tune::in_toml(&best.params).join("\n  "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_have_names() {
        for kind in SamplerKind::ALL {
            assert_eq!(sampler(kind.name()), Ok(kind));
        }
        assert_eq!(sampler("hyperopt"), Err("there are tpe, gp, random".to_owned()));
    }
}
