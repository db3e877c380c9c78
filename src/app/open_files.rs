//! How many files this process may have open: a connection is one, and so are the files of a store. Systems begin with
//! 1,024 and let a process ask for more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as a process with thousands of connections and stores has; more are of no use.
const OPEN_FILES: u64 = 65_536;
/// What is open besides connections: stores, the broker's connections, logs.
const OTHERS: u64 = 200;

/// Asks for as many as the system allows, and returns how many those are.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current.unwrap_or(u64::MAX);
    let wanted = maximum.unwrap_or(u64::MAX).min(OPEN_FILES);
    if before >= wanted {
        return before;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on open files from {before}");
            before
        }
    }
}

/// Raises the limit; warns if that is still not enough for so many connections.
pub(super) fn raise_for(connections_max: usize) {
    let limit = raise();
    let connections = u64::try_from(connections_max).unwrap_or(u64::MAX);
    if limit < connections.saturating_add(OTHERS) {
        tracing::warn!(
            "{limit} files may be open, which is too few for [http] connections_max = {connections_max}: raise the limit \
             (ulimit -n), or lower connections_max"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_what_the_system_allows() {
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let low = Rlimit { current: Some(allowed / 2), maximum: Some(allowed) };
        setrlimit(Resource::Nofile, low).unwrap();
        let raised = raise();
        assert!(raised >= allowed.min(OPEN_FILES), "{raised} of {allowed}");
        assert_eq!(getrlimit(Resource::Nofile).current, Some(raised));
    }
}
