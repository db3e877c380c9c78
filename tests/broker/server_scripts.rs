//! The scripts that start test servers: no two take the same TCP port, and a port that another process takes first is
//! replaced.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker")
}

/// A process that takes ports as the scripts do, prints them, and holds them until its standard input ends.
fn take(count: usize, ports: &str) -> Command {
    let mut command = Command::new("bash");
    let script =
        format!(". ./process.sh; take_ports {count}; echo \"${{taken[*]}}\"; cat >/dev/null");
    command.args(["-c", &script, "take"]).current_dir(scripts()).env("FORETELL_TEST_PORTS", ports);
    command
}

/// A process that binds a port and does not listen. A connection is refused, so a script takes the port for free, but cannot
/// bind it.
fn hold(port: u16) -> crate::process::Process {
    let script = format!(
        "import socket, sys, time\ns = socket.socket()\ns.bind((\"127.0.0.1\", {port}))\n\
         print(\"held\", flush=True)\ntime.sleep(3600)"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]);
    let holder = crate::process::Process::spawn(format!("the holder of port {port}"), command);
    crate::process::until("the port is bound", crate::process::SOON, || {
        holder.output().contains("held").then_some(())
    });
    holder
}

#[test]
fn ports_are_distinct_and_held() {
    let mut first =
        take(4, "19900 8").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "19900 19901 19902 19903");
    let second = take(4, "19900 8").stdin(Stdio::null()).output().unwrap();
    let second = String::from_utf8(second.stdout).unwrap();
    assert_eq!(second.trim(), "19904 19905 19906 19907", "the first four are locked");
    let third = take(5, "19900 8").stdin(Stdio::null()).output().unwrap();
    assert!(!third.status.success(), "only four are left");
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    let fourth = take(8, "19900 8").stdin(Stdio::null()).output().unwrap();
    assert!(fourth.status.success(), "{fourth:?}");
}

/// Starts and stops a server while its first choice of ports includes one that is `taken`.
fn check_start_with_taken_port(name: &str, ports: &str, taken: u16) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let _holder = hold(taken);
    let up = Command::new(scripts().join(format!("{name}-up.sh")))
        .arg(&run)
        .env("FORETELL_TEST_PORTS", ports)
        .output()
        .unwrap();
    let down = Command::new(scripts().join(format!("{name}-down.sh"))).arg(&run).status().unwrap();
    let printed = String::from_utf8(up.stderr).unwrap();
    assert!(up.status.success() && down.success(), "{printed}");
    assert!(printed.contains("another process took a port first"), "{printed}");
}

#[test]
fn a_registry_whose_port_is_taken_uses_another() {
    check_start_with_taken_port("registry", "19910 4", 19_910);
}

#[test]
fn a_kafka_with_one_taken_port_uses_others() {
    check_start_with_taken_port("kafka", "19920 12", 19_922);
}
