//! The command line of ordergate: the rest is in the library, so that tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ordergate::cli::main(std::env::args_os())
}
