//! The command line of ordergate: the rest is in the library, so that tests reach it.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Records are made by one thread and dropped by another, for months: glibc's allocator keeps what it once had (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    ordergate::cli::main(std::env::args_os())
}
