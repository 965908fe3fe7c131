//! The one topic that is compacted, `gate.directory`: a tombstone erases what has its key.
//!
//! Invariant: what was erased is in no page of the file, and after the next scrub in no frame of its write-ahead log. So a row is never
//! moved while it lives: rows are only added at the end, and are erased where they are, by zeros of the same length (SQLite overwrites
//! in place; `secure_delete` alone would leave copies behind that page splits and merges have made). Erased rows are swept when there
//! are more of them than others, into a new table, and the old one's pages are zeroed. The last row stays, whatever it is: it says
//! where the topic ends. Tombstones stay for a while, for readers that have not seen them.
//! Keys are found by a digest, since an index does move its entries.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, params};

use crate::domain::Millis;
use crate::log::{LogError, StoredRecord};

use super::error::log_error;
use super::schema::{from_sql, to_sql};

pub(super) const TABLES: &str = "
CREATE TABLE directory (position INTEGER PRIMARY KEY, erased INTEGER NOT NULL, digest INTEGER NOT NULL, ts INTEGER NOT NULL, key BLOB, payload BLOB NOT NULL) STRICT;
CREATE INDEX directory_digest ON directory (digest) WHERE erased = 0;
";
/// A new table with what is kept of the old one. The old one's pages are freed, and zeroed as they are.
const SWEEP: &str = "
CREATE TABLE directory_swept (position INTEGER PRIMARY KEY, erased INTEGER NOT NULL, digest INTEGER NOT NULL, ts INTEGER NOT NULL, key BLOB, payload BLOB NOT NULL) STRICT;
INSERT INTO directory_swept SELECT * FROM directory WHERE erased = 0 AND (length(payload) > 0 OR position > (SELECT max(position) FROM directory) - 10000) ORDER BY position;
DROP TABLE directory;
ALTER TABLE directory_swept RENAME TO directory;
CREATE INDEX directory_digest ON directory (digest) WHERE erased = 0;
";
/// Fewer useless rows than this are not worth a sweep.
const SWEEP_ROWS_MIN: u64 = 20_000;
/// The write-ahead log is scrubbed when nothing is written, or this long after an erasure.
const SCRUB_AFTER: Duration = Duration::from_secs(20);

/// What the writer knows of the topic.
pub(super) struct Compaction {
    /// Rows, and those of them that are of no use: erased ones, and tombstones.
    rows: u64,
    useless: u64,
    /// Since when the write-ahead log may hold what was erased.
    unscrubbed: Option<Instant>,
}

impl Compaction {
    /// What is there when the file is opened. A kill may have left something to scrub.
    pub fn of(connection: &Connection) -> Result<Self, LogError> {
        let count = "SELECT count(*), coalesce(sum(erased OR length(payload) = 0), 0) FROM directory";
        let (rows, useless) =
            connection.query_row(count, [], |row| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)))).map_err(|error| log_error(&error))?;
        Ok(Self { rows, useless, unscrubbed: Some(Instant::now()) })
    }

    /// Adds a record; a tombstone erases what has its key first.
    pub fn insert(&mut self, connection: &Connection, offset: u64, ts: Millis, key: Option<&[u8]>, payload: &[u8]) -> rusqlite::Result<()> {
        let digest = key.map_or(0, digest);
        if let (Some(key), true) = (key, payload.is_empty()) {
            // Every value keeps its length, and so its place.
            let erase = "UPDATE directory SET erased = 1, key = zeroblob(length(key)), payload = zeroblob(length(payload)) \
                         WHERE digest = ? AND erased = 0 AND key = ?";
            let erased = connection.prepare_cached(erase)?.execute(params![digest, key])?;
            self.useless += erased as u64 + 1;
            self.unscrubbed.get_or_insert_with(Instant::now);
        }
        self.rows += 1;
        let insert = "INSERT INTO directory (position, erased, digest, ts, key, payload) VALUES (?, 0, ?, ?, ?, ?)";
        connection.prepare_cached(insert)?.execute(params![to_sql(offset), digest, ts, key, payload]).map(|_| ())
    }

    /// Sweeps and scrubs, if it is time to.
    pub fn tidy(&mut self, connection: &Connection, is_idle: bool) {
        let is_worth_it = self.useless >= SWEEP_ROWS_MIN && self.useless * 2 > self.rows;
        let is_urgent = self.useless >= SWEEP_ROWS_MIN * 4 && self.useless * 5 > self.rows * 4;
        if (is_worth_it && is_idle || is_urgent)
            && let Err(error) = self.sweep(connection)
        {
            // Nothing is lost: the rows are zeroes already.
            tracing::warn!(%error, "the directory's topic could not be swept");
            self.useless = 0;
        }
        if self.unscrubbed.is_some_and(|since| is_idle || since.elapsed() > SCRUB_AFTER) && scrub(connection) {
            self.unscrubbed = None;
        }
    }

    pub(super) fn sweep(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let begun = Instant::now();
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(SWEEP)?;
        let (rows, useless) =
            transaction.query_row("SELECT count(*), coalesce(sum(length(payload) = 0), 0) FROM directory", [], |row| {
                Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)))
            })?;
        transaction.commit()?;
        tracing::info!(before = self.rows, after = rows, ms = begun.elapsed().as_millis(), "the directory's topic is swept");
        (self.rows, self.useless) = (rows, useless);
        self.unscrubbed.get_or_insert_with(Instant::now);
        Ok(())
    }
}

/// Moves the write-ahead log into the file and empties it. False while somebody reads: nobody waits for that.
fn scrub(connection: &Connection) -> bool {
    let patience: rusqlite::Result<u64> = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0).map(from_sql));
    let emptied = || {
        connection.busy_timeout(Duration::ZERO)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    };
    let is_busy = emptied();
    if let Ok(patience) = patience
        && let Err(error) = connection.busy_timeout(Duration::from_millis(patience))
    {
        tracing::debug!(%error, "the log's patience is not set back");
    }
    matches!(is_busy, Ok(0))
}

/// The records at or above an offset.
pub(super) fn read(connection: &Connection, from: u64, limit: i64) -> rusqlite::Result<Vec<StoredRecord>> {
    let sql = "SELECT position, ts, key, payload FROM directory WHERE position >= ? AND erased = 0 ORDER BY position LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    super::schema::bounded(statement.query_map(params![to_sql(from), limit], stored)?, |record| record.payload.len())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord { offset: from_sql(row.get(0)?), ts: row.get(1)?, key: row.get(2)?, payload: row.get(3)?, tag: None })
}

/// A key's digest: it tells nothing of the key.
fn digest(key: &[u8]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(key).as_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        connection
    }

    fn keys(connection: &Connection) -> Vec<(u64, String)> {
        let text = |record: StoredRecord| (record.offset, String::from_utf8(record.key.unwrap()).unwrap());
        read(connection, 0, i64::MAX).unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn a_sweep_keeps_what_lives_the_last_tombstones_and_the_end() {
        let connection = table();
        let mut compaction = Compaction::of(&connection).unwrap();
        for number in 0..15_000_u64 {
            let key = format!("k{number}");
            compaction.insert(&connection, 2 * number, 0, Some(key.as_bytes()), b"x").unwrap();
            let payload: &[u8] = if number == 3 { b"y" } else { b"" };
            compaction.insert(&connection, 2 * number + 1, 0, Some(key.as_bytes()), payload).unwrap();
        }
        assert_eq!((compaction.rows, compaction.useless), (30_000, 2 * 14_999));
        compaction.tidy(&connection, true);
        let left = keys(&connection);
        assert_eq!(left[..2], [(6, "k3".to_owned()), (7, "k3".to_owned())]);
        assert_eq!((left.len(), left[2].0, left.last().unwrap().0), (2 + 5_000, 20_001, 29_999));
        let rows: u64 = connection.query_row("SELECT count(*) FROM directory", [], |row| row.get(0).map(from_sql)).unwrap();
        assert_eq!((rows, compaction.rows, compaction.useless), (5_002, 5_002, 5_000));
        compaction.insert(&connection, 30_000, 0, Some(b"k3"), b"").unwrap();
        assert_eq!(keys(&connection)[0].0, 20_001, "it is found by its digest in the new table too");
    }

    #[test]
    fn a_few_tombstones_are_not_worth_a_sweep() {
        let connection = table();
        let mut compaction = Compaction::of(&connection).unwrap();
        for number in 0..1_000 {
            compaction.insert(&connection, number, 0, Some(b"k"), b"").unwrap();
        }
        compaction.tidy(&connection, true);
        assert_eq!((compaction.rows, keys(&connection).len()), (1_000, 1));
    }
}
