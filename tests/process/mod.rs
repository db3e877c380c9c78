//! Runs `foretell` as a process, and reads its output and its HTTP interface.

pub(crate) mod waits;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use flate2::read::GzDecoder;
use foretell_streams::time::{Clock, SystemClock};
use serde_json::Value as Json;

/// Bound of a wait, far longer than any wait takes, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(180);

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `poll` until it returns a value. After `within` it panics and names the condition.
pub(crate) fn until<T>(
    condition: &str,
    within: Duration,
    mut poll: impl FnMut() -> Option<T>,
) -> T {
    let clock = SystemClock::new();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(clock.elapsed() < within, "not within {within:?}: {condition}");
        thread::park_timeout(POLL_INTERVAL);
    }
}

/// Path of the configuration of the worked example.
pub(crate) fn example() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml")
}

/// Settings that make the worked example quick: the first `rows` of its initial data, and one trial.
pub(crate) fn quick_settings(folder: &Path, rows: usize) -> Vec<String> {
    let data = fs::File::open(Path::new(example()).with_file_name("adult.data.gz")).unwrap();
    let lines = BufReader::new(GzDecoder::new(data)).lines().take(rows);
    let lines: Vec<String> = lines.map(|line| line.unwrap() + "\n").collect();
    let path = folder.join("initial.csv");
    fs::write(&path, lines.concat()).unwrap();
    let path = path.display();
    let settings =
        ["tuning.trials=1", "learning.tuning.trials=0", "http.bind=127.0.0.1:0"].map(str::to_owned);
    [format!("data.initial.path={path}")].into_iter().chain(settings).collect()
}

/// Path of a tool that `.ci/setup` installs.
pub(crate) fn tool(name: &str, setup: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test target reads its environment")]
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = || Some(format!("{}/.cache", variable("HOME")?));
    let cache = variable("XDG_CACHE_HOME").or_else(home).unwrap_or_default();
    let installed = Path::new(&cache).join("foretell/tools/bin");
    let path = variable("PATH").unwrap_or_default();
    let mut files =
        [installed].into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name));
    files.find(|file| file.is_file()).unwrap_or_else(|| panic!("no {name}: run {setup}"))
}

/// A running `foretell` or other program. It is killed when dropped. If the test fails, its errors are shown.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Lines,
    errors: Lines,
}

impl Process {
    /// Starts `foretell` with `arguments`, without the settings in the environment of the test.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_after(":", arguments)
    }

    /// As [`Self::start`], after a shell has run `first`.
    pub(crate) fn start_after(first: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_foretell"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FORETELL_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(format!("foretell {}", arguments.join(" ")), command)
    }

    /// Starts another program. `name` is used in messages.
    pub(crate) fn spawn(name: String, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Lines::of(child.stdout.take().expect("it is piped"));
        let errors = Lines::of(child.stderr.take().expect("it is piped"));
        Self { name, child, output, errors }
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self, within: Duration) -> ExitStatus {
        let condition = format!("the end of {}", self.name);
        let status = until(&condition, within, || self.child.try_wait().unwrap());
        self.output.end();
        self.errors.end();
        status
    }

    /// Waits for its end, asserts success, and returns its output.
    pub(crate) fn succeed(mut self, within: Duration) -> String {
        let status = self.end(within);
        assert!(status.success(), "{}: {status}\n{}", self.name, self.errors.text());
        self.output.text()
    }

    /// Standard output so far.
    pub(crate) fn output(&self) -> String {
        self.output.text()
    }

    /// Standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.errors.text()
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        self.run_on(&format!("kill -{signal}"));
    }

    /// Runs a command with the process id as its last argument.
    pub(crate) fn run_on(&self, command: &str) {
        let command = format!("{command} {}", self.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its current use of resources.
    pub(crate) fn resources(&self) -> Resources {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let number = |name: &str| -> usize {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
        };
        Resources { threads: number("Threads"), memory: number("VmRSS") << 10 }
    }

    /// Waits until `run` serves HTTP, and returns a client.
    pub(crate) fn http(&mut self) -> Http {
        self.http_after("serving address=")
    }

    /// Waits until the process logs the address at which it serves HTTP, after `words`, and returns a client.
    pub(crate) fn http_after(&mut self, words: &str) -> Http {
        let address = until(&format!("{} serves", self.name), SOON, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended: {status}\n{}", self.name, self.errors.text());
            }
            let text = self.errors.text();
            let (_, rest) = text.split_once(words)?;
            let end = rest.find([' ', '"', '\n'])?;
            Some(rest[..end].to_owned())
        });
        let client = reqwest::blocking::Client::builder().timeout(SOON).build().unwrap();
        Http { base: format!("http://{address}"), client }
    }
}

/// Use of resources of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) threads: usize,
    /// Resident set size in bytes.
    pub(crate) memory: usize,
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "shown with the output of a failed test")]
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child
                .kill()
                .and_then(|()| self.child.wait())
                .map(drop)
                .expect("a child process can be killed");
        }
        if thread::panicking() {
            let text = self.errors.text();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("--- {}\n{last}", self.name);
        }
    }
}

/// The output of a pipe so far, read by a thread.
struct Lines {
    text: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&text);
        let thread = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self { text, thread: Some(thread) }
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// HTTP client of one process.
pub(crate) struct Http {
    pub(crate) base: String,
    client: reqwest::blocking::Client,
}

impl Http {
    /// A TCP connection, for requests that the client cannot send.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.base.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Status and body; `None` without a response.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = self.client.get(format!("{}{path}", self.base)).send().ok()?;
        Some((answer.status().as_u16(), answer.text().ok()?))
    }

    /// Posts a body, with a token if there is one. Returns status and body.
    pub(crate) fn post(&self, path: &str, body: &str, token: Option<&str>) -> Option<(u16, Json)> {
        let request = self.client.post(format!("{}{path}", self.base)).body(body.to_owned());
        let request =
            token.into_iter().fold(request, reqwest::blocking::RequestBuilder::bearer_auth);
        let answer = request.send().ok()?;
        let status = answer.status().as_u16();
        Some((status, serde_json::from_str(&answer.text().ok()?).ok()?))
    }

    /// Status and body. Without a response it tries again, because the server may close an idle connection at any time.
    fn get_with_retry(&self, path: &str) -> (u16, String) {
        until(&format!("a response of {}", self.base), SOON, || self.get(path))
    }

    /// `/api/v1/status`
    pub(crate) fn status(&self) -> Json {
        let (code, body) = self.get_with_retry("/api/v1/status");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) fn ready(&self) {
        until(&format!("{} is ready", self.base), SOON, || {
            self.get("/readyz").filter(|(code, _)| *code == 200)
        });
    }

    /// Value of a metric, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get_with_retry("/metrics");
        let of_it = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next())??;
            value.parse::<f64>().ok()
        });
        of_it.sum()
    }
}

/// `path` of a JSON value, such as `/model/version`.
pub(crate) fn at<'a>(json: &'a Json, path: &str) -> &'a Json {
    json.pointer(path).unwrap_or_else(|| panic!("no {path} in {json}"))
}
