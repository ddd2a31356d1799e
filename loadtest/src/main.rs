//! `mirror-loadtest`: see the library's page.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mirror_loadtest::cli::main()
}
