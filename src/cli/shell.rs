//! `ordergate completions` and `ordergate man`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit, Failure, OrExit, say_bytes};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell to complete for
    shell: Shell,
}

/// Prints the completions of a shell.
pub fn completions(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ordergate", &mut script);
    say_bytes(&script)
}

/// Prints the man page: the program and, after it, each command.
pub fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    let mut program = Cli::command();
    program.build();
    let mut rendered = clap_mangen::Man::new(program.clone()).render(&mut page);
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let named = command.clone().disable_help_flag(true);
        rendered = rendered.and_then(|()| clap_mangen::Man::new(named).render(&mut page));
    }
    rendered.or_exit(Exit::Io, || "cannot print the man page".to_owned())?;
    say_bytes(&page)
}
