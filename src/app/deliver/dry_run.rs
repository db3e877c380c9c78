//! `foretell deliver --dry-run`: what would be sent for the newest actions, without a group and without sending.

use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

use crate::{
    app::{
        cluster::Cluster,
        deliver::{
            self,
            action::DueAction,
            outcome::Rejection,
            reader::{ActionReader, Read},
        },
    },
    config::Config,
};
use foretell_streams::time::Clock;

/// Shows what each channel would send for each of the newest `most` actions.
///
/// # Errors
/// If the settings are invalid, or the topic cannot be read.
pub fn dry_run(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    most: usize,
    show: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let reader = deliver::reader(config, cluster)?;
    let channels = deliver::channels(config, clock)?;
    for action in newest(config, cluster, &reader, most)? {
        let DueAction { action_id, rule, record, .. } = action.as_ref();
        let mut is_delivered = false;
        for channel in &channels {
            let rules = channel.settings.rules.as_ref();
            if rules.is_none_or(|rules| rules.contains(rule)) {
                is_delivered = true;
                let name = &channel.settings.name;
                let (source, offset) = (&record.source, record.offset);
                let age = clock.now().since(action.due);
                let preview = if age >= channel.settings.expires {
                    let Rejection { class, reason } =
                        Rejection::expired(age, channel.settings.expires, 0);
                    format!("not sent, {class}: {reason}")
                } else {
                    channel.sender.preview(&action)
                };
                show(&format!("# channel {name}, rule {rule}, {source}@{offset}\n{preview}\n"));
            }
        }
        if !is_delivered {
            show(&format!("# no channel delivers action {action_id} of rule {rule}\n"));
        }
    }
    Ok(())
}

/// The newest actions of the topic that are to be done, by the times of the records.
fn newest(
    config: &Config,
    cluster: &Cluster,
    reader: &ActionReader,
    most: usize,
) -> anyhow::Result<Vec<Arc<DueAction>>> {
    let mut newest: Vec<Arc<DueAction>> = Vec::new();
    let mut of_partition = VecDeque::new();
    let mut partition = None;
    let mut unavailable = None;
    cluster.read_to_end(&config.topics.actions, |record| {
        if partition.replace(record.source.partition) != Some(record.source.partition) {
            newest.extend(of_partition.drain(..));
        }
        match reader.read(record) {
            Read::Due(action) => {
                of_partition.push_back(action);
                if of_partition.len() > most {
                    of_partition.pop_front();
                }
            }
            Read::NotDue => {}
            Read::Unreadable { class, message, .. } => {
                let (source, offset) = (&record.source, record.offset);
                tracing::warn!(%source, %offset, class, message, "skipping a record that cannot be decoded");
            }
            Read::Unavailable(message) => {
                unavailable = Some(message);
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(message) = unavailable {
        anyhow::bail!("cannot decode an action just now: {message}");
    }
    newest.extend(of_partition);
    newest.sort_by_key(|action| action.record.timestamp);
    let older = newest.len().saturating_sub(most);
    Ok(newest.split_off(older))
}
