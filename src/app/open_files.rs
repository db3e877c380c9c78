//! The limit on open files, which connections and the files of stores count towards. Most systems start a process with 1,024
//! and let it raise the limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for thousands of connections and stores.
const OPEN_FILES: u64 = 65_536;
/// Open files besides HTTP connections: stores, broker connections, logs.
const OTHERS: u64 = 200;

/// Raises the limit as far as the system allows, up to [`OPEN_FILES`], and returns it.
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

/// Raises the limit, and logs a warning if it is too low for `connections_max`.
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
    fn the_limit_is_raised_as_far_as_the_system_allows() {
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let low = Rlimit { current: Some(allowed / 2), maximum: Some(allowed) };
        setrlimit(Resource::Nofile, low).unwrap();
        let raised = raise();
        assert!(raised >= allowed.min(OPEN_FILES), "{raised} of {allowed}");
        assert_eq!(getrlimit(Resource::Nofile).current, Some(raised));
    }
}
