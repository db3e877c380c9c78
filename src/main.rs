//! Calls `cli`, which picks the exit code.

fn main() -> std::process::ExitCode {
    foretell::cli::main()
}
