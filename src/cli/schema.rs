//! `ordergate schema`: the contracts of all records, as JSON Schema and AsyncAPI, and of the API, as OpenAPI.

use std::fs;
use std::path::PathBuf;

use super::{Exit, Failure, OrExit, say};
use crate::api::v1::openapi_json;
use crate::wire::schema;

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to print, such as order_intent.json or openapi.json; without it their names are listed
    #[arg(conflicts_with = "out")]
    name: Option<String>,
    /// Write all files to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints or writes the schemas.
pub fn run(args: &Args) -> Result<(), Failure> {
    let files = files();
    if let Some(dir) = &args.out {
        fs::create_dir_all(dir).or_exit(Exit::Io, || format!("cannot make {}", dir.display()))?;
        for (name, text) in &files {
            let path = dir.join(name);
            fs::write(&path, text).or_exit(Exit::Io, || format!("cannot write {}", path.display()))?;
        }
        return say(&format!("{} files written to {}\n", files.len(), dir.display()));
    }
    let Some(wanted) = &args.name else {
        return say(&files.iter().map(|(name, _)| format!("{name}\n")).collect::<String>());
    };
    let is_wanted = |name: &str| name == wanted || (wanted == "openapi" && name == OPENAPI);
    match files.iter().find(|(name, _)| is_wanted(name)) {
        Some((_, text)) => say(text),
        None => Err(Failure::new(Exit::Usage, format!("there is no schema {wanted}; `ordergate schema` lists them"))),
    }
}

const OPENAPI: &str = "openapi.json";

/// Every file of `schemas/`.
fn files() -> Vec<(String, String)> {
    let mut files = schema::all();
    files.push((OPENAPI.to_owned(), openapi_json()));
    files
}
