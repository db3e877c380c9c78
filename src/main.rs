//! The `foretell` binary.

fn main() -> std::process::ExitCode {
    foretell::cli::main()
}
