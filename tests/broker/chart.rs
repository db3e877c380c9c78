//! The containers of the Helm chart as processes, on a real Kafka: with the arguments, the environment and the files that
//! Kubernetes would give them, in a folder instead of the root of a file system.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value as Json, json};

use crate::{
    application::{INITIAL, brokers, registry},
    process::{Http, Process, SOON, at, example, quick_settings, tool, until},
    receiver::Receiver,
};

const SETUP: &str = ".ci/setup check";
const TOKEN: &str = "hunter2";
/// Folders that volumes are mounted below.
const ROOTS: [&str; 4] = ["/etc/foretell", "/run/secrets", "/var/lib/foretell", "/data"];

/// The rendered chart, and the folder that stands for the root of each pod's file system.
struct Chart {
    resources: Vec<Json>,
    folder: PathBuf,
}

impl Chart {
    fn render(folder: &Path, values: &Json) -> Self {
        let file = folder.join("values.json");
        fs::write(&file, values.to_string()).unwrap();
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm");
        let mut helm = Command::new(tool("helm", SETUP));
        helm.args(["template", "visits", chart, "--kube-version", "1.35.0", "--values"]).arg(file);
        let rendered = helm.output().unwrap();
        let errors = String::from_utf8_lossy(&rendered.stderr);
        assert!(rendered.status.success(), "{errors}");
        let script =
            "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
        let mut python = Command::new(tool("python3", SETUP));
        python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        python.stdin.take().unwrap().write_all(&rendered.stdout).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "cannot read YAML: {SETUP}");
        let resources = serde_json::from_slice(&output.stdout).unwrap();
        Self { resources, folder: folder.to_owned() }
    }

    fn find(&self, kind: &str, name: &str) -> &Json {
        let is_it =
            |it: &&Json| at(it, "/kind") == kind && at(it, "/metadata/name").as_str() == Some(name);
        self.resources.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// Starts the container of a pod of `workload`. `secrets` are the contents of Secrets, by name and key.
    fn start(
        &self,
        (kind, workload): (&str, &str),
        pod: &str,
        secrets: &BTreeMap<(&str, &str), &str>,
    ) -> Process {
        let spec = at(self.find(kind, workload), "/spec/template/spec");
        let container = at(spec, "/containers/0");
        let root = self.folder.join(pod);
        for mount in at(container, "/volumeMounts").as_array().unwrap() {
            let name = at(mount, "/name");
            let folder = inside(&root, at(mount, "/mountPath").as_str().unwrap());
            fs::create_dir_all(&folder).unwrap();
            // The volume of a StatefulSet's claim is in no list of the pod.
            let volumes = at(spec, "/volumes").as_array().unwrap();
            let Some(volume) = volumes.iter().find(|volume| at(volume, "/name") == name) else {
                continue;
            };
            for (file, content) in self.files(volume, secrets) {
                fs::write(folder.join(file), relocated(&root, &content)).unwrap();
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretell"));
        let arguments = at(container, "/args").as_array().unwrap();
        command.args(arguments.iter().map(|argument| argument.as_str().unwrap()));
        command.env_clear().current_dir(&root).stdin(Stdio::null());
        for variable in at(container, "/env").as_array().unwrap() {
            let field = variable.pointer("/valueFrom/fieldRef/fieldPath");
            let value = match field.map(|field| field.as_str().unwrap()) {
                Some("metadata.name") => pod.to_owned(),
                Some(other) => panic!("an unknown field: {other}"),
                None => relocated(&root, at(variable, "/value").as_str().unwrap()),
            };
            // All pods are on one host: each takes a free port.
            let value =
                value.replace("0.0.0.0:8080", "0.0.0.0:0").replace("0.0.0.0:8081", "0.0.0.0:0");
            command.env(at(variable, "/name").as_str().unwrap(), value);
        }
        Process::spawn(pod.to_owned(), command)
    }

    /// The files of a volume.
    fn files(
        &self,
        volume: &Json,
        secrets: &BTreeMap<(&str, &str), &str>,
    ) -> Vec<(String, String)> {
        if let Some(name) = volume.pointer("/configMap/name") {
            let map = at(self.find("ConfigMap", name.as_str().unwrap()), "/data");
            let files = map.as_object().unwrap().iter();
            return files
                .map(|(file, text)| (file.clone(), text.as_str().unwrap().to_owned()))
                .collect();
        }
        let Some(name) = volume.pointer("/secret/secretName") else { return Vec::new() };
        let of_it = secrets.iter().filter(|((secret, _), _)| name == secret);
        of_it.map(|((_, key), content)| ((*key).to_owned(), (*content).to_owned())).collect()
    }
}

/// An absolute path of a pod inside its folder.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// A text with the absolute paths of a pod inside its folder.
fn relocated(root: &Path, text: &str) -> String {
    ROOTS.iter().fold(text.to_owned(), |text, path| {
        text.replace(path, inside(root, path).to_str().unwrap())
    })
}

/// The worked example on the test cluster, as values of the chart: two instances with standby copies, and a delivery with a
/// configuration and a secret of its own.
fn values(folder: &Path) -> Json {
    let prefix = folder.file_name().and_then(|name| name.to_str()).unwrap();
    let prefix = format!("chart-{}-", prefix.trim_start_matches('.'));
    let text = fs::read_to_string(example()).unwrap();
    let schema = Path::new(example()).with_file_name("../../schemas/questionnaire-event/v1.avsc");
    let text = text
        .replace("../../schemas/questionnaire-event/v1.avsc", "events.avsc")
        .replace("localhost:19092", &brokers())
        .replace("http://localhost:18081", &registry())
        .replace("[topics]\n", &format!("[topics]\nprefix = \"{prefix}\"\n"))
        .replace("[streams]\n", "[streams]\nstandby = true\n")
        .replace("adult.data.gz", "/data/initial.csv");
    // The chart sets the address, and the table that is played is not in the image.
    let (text, _) = text.split_once("# The table that `foretell send`").unwrap();
    let delivery =
        "[[delivery.webhooks]]\nname = \"crm\"\nurl = { file = \"/run/secrets/crm/url\" }\n";
    json!({
        "config": text,
        "files": { "events.avsc": fs::read_to_string(schema).unwrap() },
        "http": { "tokenSecret": { "name": "foretell-http", "key": "token" } },
        "extraEnv": [
            { "name": "FORETELL_TUNING_TRIALS", "value": "1" },
            { "name": "FORETELL_BROKER_SESSION_TIMEOUT", "value": "6s" },
            { "name": "FORETELL_BROKER_TRANSACTION_TIMEOUT", "value": "5s" },
        ],
        "init": {
            "extraVolumes": [{ "name": "data", "emptyDir": {} }],
            "extraVolumeMounts": [{ "name": "data", "mountPath": "/data" }],
        },
        "delivery": {
            "enabled": true,
            "config": format!("{text}\n{delivery}"),
            "secrets": [{ "name": "crm", "secretName": "crm" }],
        },
    })
}

/// The address at which a process serves, on this host.
fn http(process: &mut Process) -> Http {
    let mut http = process.http_after("\"address\":\"");
    http.base = http.base.replace("0.0.0.0", "127.0.0.1");
    http
}

#[test]
fn the_containers_of_the_helm_chart_start_and_stop() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let chart = Chart::render(folder.path(), &values(folder.path()));
    let url = receiver.url();
    let secrets =
        BTreeMap::from([(("foretell-http", "token"), TOKEN), (("crm", "url"), url.as_str())]);

    let data = folder.path().join("init/data");
    fs::create_dir_all(&data).unwrap();
    let _settings = quick_settings(&data, INITIAL);
    let printed = chart.start(("Job", "visits-foretell-init"), "init", &secrets).succeed(SOON);
    assert!(printed.contains("first model"), "{printed}");

    let names = ["visits-foretell-0", "visits-foretell-1"];
    let mut pods =
        names.map(|name| chart.start(("StatefulSet", "visits-foretell"), name, &secrets));
    let mut delivery =
        chart.start(("Deployment", "visits-foretell-delivery"), "delivery", &secrets);
    let https = pods.each_mut().map(http);
    for (http, name) in https.iter().zip(names) {
        until("it has started", SOON, || http.get("/startupz").filter(|(code, _)| *code == 200));
        http.ready();
        assert_eq!(at(&http.status(), "/instance"), name);
        let state = folder.path().join(name).join("var/lib/foretell/state");
        assert!(state.is_dir(), "its stores are on its volume");
    }
    http(&mut delivery).ready();

    let event = json!({ "respondent_id": "me", "completed": true, "age": 39 }).to_string();
    let (code, _) = https[0].post("/api/v1/events?wait=true", &event, None).unwrap();
    assert_eq!(code, 401, "without the token");
    let (code, prediction) =
        https[0].post("/api/v1/events?wait=true", &event, Some(TOKEN)).unwrap();
    assert_eq!((code, at(&prediction, "/respondent_id")), (200, &json!("me")));

    for process in pods.iter_mut().chain([&mut delivery]) {
        process.signal("TERM");
        assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    }
}
