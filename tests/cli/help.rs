//! The help texts.

use crate::process::{Process, SOON};

#[test]
fn the_help_of_every_command_has_examples() {
    let help = |arguments: &[&str]| {
        let text = Process::start(arguments).succeed(SOON);
        assert!(text.contains("Examples:") && text.contains("--config"), "{arguments:?}: {text}");
        text
    };
    let all = help(&["--help"]);
    let (_, commands) = all.split_once("Commands:\n").unwrap();
    let commands = commands.split("\n\n").next().unwrap();
    assert!(!commands.contains(".\n") && !commands.ends_with('.'), "{commands}");
    assert!(!help(&["train", "--help"]).contains("[default: foretell.toml]"));
    for command in [
        "new",
        "demo",
        "init",
        "run",
        "deliver",
        "send",
        "serve",
        "train",
        "tune",
        "replay",
        "doctor",
        "models",
        "retrain",
        "dead-letters",
        "generate",
    ] {
        assert!(all.contains(&format!("\n  {command} ")), "{command} in {all}");
        let text = help(&[command, "--help"]);
        let (_, examples) = text.split_once("Examples:").expect("checked above");
        assert!(examples.contains(&format!("foretell {command}")), "{examples}");
        assert!(
            text.contains("--set")
                || ["models", "generate", "dead-letters", "new"].contains(&command),
            "{text}"
        );
    }
    assert!(all.contains("FORETELL_BROKER_BOOTSTRAP_SERVERS"), "{all}");
}

#[test]
fn help_is_plain_text() {
    let mut commands = vec![vec![], vec!["schema"], vec!["models"], vec!["generate", "agrawal"]];
    commands.extend(
        [
            "new",
            "demo",
            "init",
            "run",
            "deliver",
            "send",
            "serve",
            "train",
            "tune",
            "replay",
            "doctor",
            "retrain",
            "dead-letters",
            "generate",
        ]
        .map(|name| vec![name]),
    );
    let of_models =
        ["list", "show", "diff", "promote", "rollback", "reproduce", "export", "import"];
    commands.extend(of_models.map(|name| vec!["models", name]));
    commands.extend(["list", "show", "replay"].map(|name| vec!["dead-letters", name]));
    commands
        .extend(["check", "register", "diff", "evolve", "show"].map(|name| vec!["schema", name]));
    for command in commands {
        for flag in ["-h", "--help"] {
            let text = Process::start(&[&command[..], &[flag]].concat()).succeed(SOON);
            let examples = text.find("Examples:").unwrap_or(text.len());
            let own = &text[..examples];
            assert!(!own.contains('\\'), "{text}");
            assert!(
                text.starts_with(|c: char| c.is_uppercase()),
                "it begins with a description: {text}"
            );
            assert!(text.contains("Usage: foretell"), "{text}");
        }
    }
}

#[test]
fn the_version_is_printed() {
    let version = concat!("foretell ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(Process::start(&["--version"]).succeed(SOON), version);
}
