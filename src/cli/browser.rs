//! Opens an address in the user's browser, with the program that the system has for it.

use std::{
    io,
    process::{Command, Stdio},
};

/// The program and its first arguments.
const OPENER: &[&str] = if cfg!(target_os = "macos") {
    &["open"]
} else if cfg!(target_os = "windows") {
    &["cmd", "/C", "start", ""]
} else {
    &["xdg-open"]
};

/// Starts the program, and does not wait for it.
///
/// # Errors
/// If it cannot be started.
pub(super) fn open(address: &str) -> io::Result<()> {
    let [program, arguments @ ..] = OPENER else { return Err(io::ErrorKind::Unsupported.into()) };
    let mut opener = Command::new(program);
    opener.args(arguments).arg(address);
    opener.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    opener.spawn().map(drop)
}
