//! The command line of ordergate.

fn main() {}
