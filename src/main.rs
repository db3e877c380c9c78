//! The `foretell` binary.

/// Measured on the whole job: a third of a scoring thread's time was spent in glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    foretell::cli::main()
}
