//! Folders of snapshots: opening one in spite of sled, and moving a doubtful one out of the way.
//!
//! Invariant: a doubtful folder is renamed, never repaired and never read again; a panic of sled ends here. Deliberately absent:
//! any judgement of what is doubtful.

use std::any::Any;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::store::StoreError;

/// Runs what touches sled, and turns a panic into an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(StoreError::Panicked(text_of(panic.as_ref()))))
}

/// What a panic said.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// Renames `dir` to `dir.broken-N`, the next free N, and removes the oldest so that at most `kept_max` stay. Gives the new name.
pub(crate) fn move_aside(dir: &Path, kept_max: usize) -> io::Result<Option<PathBuf>> {
    if !dir.exists() {
        return Ok(None);
    }
    let mut broken = broken_of(dir)?;
    let number = broken.last().map_or(1, |(number, _)| number + 1);
    let target = dir.with_file_name(format!("{}.broken-{number}", name_of(dir)));
    fs::rename(dir, &target)?;
    broken.push((number, target.clone()));
    let surplus = broken.len().saturating_sub(kept_max);
    for (_, old) in broken.drain(..surplus) {
        fs::remove_dir_all(&old)?;
    }
    Ok(Some(target))
}

/// The folders that were moved aside, oldest first.
fn broken_of(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let prefix = format!("{}.broken-", name_of(dir));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.parent().unwrap_or_else(|| Path::new(".")))? {
        let path = entry?.path();
        if let Some(number) = name_of(&path).strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
