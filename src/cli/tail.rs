//! `ordergate tail`: a topic of a daemon, or of a cluster, as lines.

mod cluster;

use std::io::{self, BufRead, BufReader, Write};

use super::client::{Client, Target};
use super::{Exit, Failure, OrExit};
use crate::wire;

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Topic, such as gate.decisions
    topic: String,
    #[command(flatten)]
    target: Target,
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Where to begin: earliest, latest or an offset
    #[arg(long, value_name = "FROM", default_value = "earliest")]
    from: String,
    /// Partition of the topic [default: 0 of a daemon, all of a cluster]
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Records to print at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print lines, or key, tab and value for `kcat -P` (a cluster only)
    #[arg(long, value_name = "FORM", value_enum, default_value = "lines")]
    form: Form,
}

/// What a record is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    // A line of an event log. (No documentation: it would spread the command's help over two pages.)
    Lines,
    // Its key, a tab, its value.
    Keyed,
}

/// Records per request, where no number was asked for.
const PAGE: u64 = 1_000;

/// Prints a topic.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Some(cluster) = args.target.cluster()? {
        return cluster::run(args, &cluster);
    }
    if args.form != Form::Lines {
        return Err(Failure::new(Exit::Usage, "--form is for a cluster: name it with --brokers or --config"));
    }
    let client = args.target.client()?;
    if args.follow || args.limit.is_some_and(|limit| limit <= PAGE) {
        return print(&client, &path(args, &args.from, args.limit)).map(drop);
    }
    let (mut from, mut left) = (args.from.clone(), args.limit.unwrap_or(u64::MAX));
    while left > 0 {
        let printed = print(&client, &path(args, &from, Some(left.min(PAGE))))?;
        let Some(last) = printed.last_offset else { return Ok(()) };
        from = (last + 1).to_string();
        left = left.saturating_sub(printed.lines);
    }
    Ok(())
}

fn path(args: &Args, from: &str, limit: Option<u64>) -> String {
    let limit = limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
    let Args { topic, follow, .. } = args;
    let partition = args.partition.unwrap_or(0);
    format!("/api/v1/topics/{topic}/records?partition={partition}&from={from}&follow={follow}{limit}")
}

/// What one answer held.
#[derive(Default)]
struct Printed {
    lines: u64,
    last_offset: Option<u64>,
}

/// Prints an answer line by line as it comes.
fn print(client: &Client, path: &str) -> Result<Printed, Failure> {
    let mut answer = client.get(path)?;
    let mut body = BufReader::with_capacity(64 * 1024, answer.body_mut().as_reader());
    let mut out = io::stdout().lock();
    let (mut printed, mut line) = (Printed::default(), Vec::new());
    loop {
        line.clear();
        let read = body.read_until(b'\n', &mut line).or_exit(Exit::Daemon, || "the daemon ended the stream".to_owned())?;
        if read == 0 {
            return Ok(printed);
        }
        out.write_all(&line).and_then(|()| out.flush()).or_exit(Exit::Io, || "cannot write to standard output".to_owned())?;
        printed.lines += 1;
        printed.last_offset = wire::parse_line(&line).ok().and_then(|line| line.offset);
    }
}
