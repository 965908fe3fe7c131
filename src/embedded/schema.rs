//! The file: its tables, and reading from them.
//!
//! Invariant: a row never changes, but in the topic that is compacted (`compacted.rs`). A topic's number is frozen; it is in every file.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::domain::{InputTopic, Source};
use crate::log::{InputRecord, LogError, OutputTag, StoredRecord, Topic};

use super::compacted;
use super::error::log_error;

/// `ogte`: what `file` and `sqlite3` show.
const APPLICATION_ID: i32 = 0x6f67_7465;
/// The format that is written. Format 1 has no table of its own for the directory, which nothing wrote to.
pub(super) const FORMAT: u32 = 2;
/// Inputs of one read are bounded in bytes too.
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Inputs are numbered by `id` across topics, which is the order in which they are applied.
/// `position` is the offset (`offset` is a word of SQL).
const TABLES: &str = "
CREATE TABLE topic (number INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE TABLE input (id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, position INTEGER NOT NULL, ts INTEGER NOT NULL, key BLOB, payload BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX input_position ON input (topic, position);
CREATE TABLE output (topic INTEGER NOT NULL, position INTEGER NOT NULL, ts INTEGER NOT NULL, key BLOB, payload BLOB NOT NULL,
  shard INTEGER, seq INTEGER, place INTEGER, PRIMARY KEY (topic, position)) STRICT;
CREATE VIEW record AS
  SELECT topic.name AS topic, position AS offset, ts, CAST(key AS TEXT) AS key, CAST(payload AS TEXT) AS payload FROM input JOIN topic ON number = input.topic
  UNION ALL
  SELECT topic.name, position, ts, CAST(key AS TEXT), CAST(payload AS TEXT) FROM output JOIN topic ON number = output.topic;
";

/// A topic's number in the file: its place in [`Topic::ALL`].
pub(super) const fn place(topic: Topic) -> usize {
    match topic {
        Topic::Input(InputTopic::Intents) => 0,
        Topic::Input(InputTopic::Executions) => 1,
        Topic::Input(InputTopic::Prices) => 2,
        Topic::Input(InputTopic::Control) => 3,
        Topic::Ledger => 4,
        Topic::Output(output) => 5 + output.place(),
        Topic::Directory => 9,
        Topic::Audit => 10,
    }
}

/// Likewise, as SQLite has it.
#[expect(clippy::cast_possible_wrap, reason = "eleven topics")]
pub(super) const fn number(topic: Topic) -> i64 {
    place(topic) as i64
}

/// Offsets are far below 2^63: one would have to write a million a second for 290,000 years.
pub(super) fn to_sql(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// Opens or makes the file; gives the next offset of each topic.
pub(super) fn open_for_writing(
    path: &Path,
    busy_timeout_ms: u64,
    file_bytes_max: Option<u64>,
) -> Result<(Connection, [u64; 11]), LogError> {
    let known = FORMAT;
    let connection = Connection::open(path).map_err(|e| log_error(&e))?;
    let found = prepare(&connection, busy_timeout_ms).map_err(|e| log_error(&e))?;
    if found > known {
        return Err(LogError::NewerVersion { found, known });
    }
    if let Some(bytes) = file_bytes_max {
        limit_size(&connection, bytes).map_err(|e| log_error(&e))?;
    }
    let mut ends = [0; 11];
    for topic in Topic::ALL {
        ends[place(topic)] = end(&connection, topic).map_err(|e| log_error(&e))?;
    }
    Ok((connection, ends))
}

fn prepare(connection: &Connection, busy_timeout_ms: u64) -> rusqlite::Result<u32> {
    connection.busy_timeout(Duration::from_millis(busy_timeout_ms))?;
    let format: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format > FORMAT {
        return Ok(format);
    }
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    // What is erased shall be nowhere: in no free page, and in no temporary file.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    if format < FORMAT {
        let transaction = connection.unchecked_transaction()?;
        if format == 0 {
            transaction.execute_batch(TABLES)?;
            for topic in Topic::ALL {
                transaction.execute("INSERT INTO topic VALUES (?, ?)", params![number(topic), topic.name()])?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        transaction.execute_batch(compacted::TABLES)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
    }
    Ok(FORMAT)
}

fn limit_size(connection: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0).map(from_sql))?;
    // It answers with the limit that is in force, which is no less than what the file has already.
    connection.pragma_update_and_check(None, "max_page_count", to_sql(bytes / page.max(1)), |_| Ok(()))
}

/// Opens the file to read from it.
pub(super) fn open_for_reading(path: &Path, busy_timeout_ms: u64) -> Result<Connection, LogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_millis(busy_timeout_ms))?;
        Ok(connection)
    };
    open().map_err(|e: rusqlite::Error| log_error(&e))
}

/// Opens a file that may be another process's, and looks whether it is ours to read.
/// It comes with its format, which may be an older one.
pub(super) fn open_to_look(path: &Path) -> Result<(Connection, u32), LogError> {
    let connection = open_for_reading(path, 5000)?;
    let format = || {
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let format: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((application, format))
    };
    match format().map_err(|e: rusqlite::Error| log_error(&e))? {
        (APPLICATION_ID, found) if found > FORMAT => Err(LogError::NewerVersion { found, known: FORMAT }),
        (APPLICATION_ID, format) => Ok((connection, format)),
        (_, _) => Err(LogError::Corrupt { detail: format!("{} is no log of ordergate", path.display()) }),
    }
}

pub(super) fn end(connection: &Connection, topic: Topic) -> rusqlite::Result<u64> {
    let last = |sql: &str, parameters: &[i64]| {
        let last: Option<i64> = connection.query_row(sql, rusqlite::params_from_iter(parameters), |row| row.get(0))?;
        Ok(last.map_or(0, |last| from_sql(last) + 1))
    };
    match topic {
        Topic::Input(_) => last("SELECT max(position) FROM input WHERE topic = ?", &[number(topic)]),
        Topic::Ledger | Topic::Output(_) | Topic::Audit => last("SELECT max(position) FROM output WHERE topic = ?", &[number(topic)]),
        Topic::Directory => last("SELECT max(position) FROM directory", &[]),
    }
}

/// The records of a topic at or above an offset.
pub(super) fn read(connection: &Connection, topic: Topic, from: u64, limit: usize) -> rusqlite::Result<Vec<StoredRecord>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = match topic {
        Topic::Directory => return compacted::read(connection, from, limit),
        Topic::Input(_) => {
            "SELECT position, ts, key, payload, NULL, NULL, NULL FROM input WHERE topic = ? AND position >= ? ORDER BY position LIMIT ?"
        }
        Topic::Ledger | Topic::Output(_) | Topic::Audit => {
            "SELECT position, ts, key, payload, shard, seq, place FROM output WHERE topic = ? AND position >= ? ORDER BY position LIMIT ?"
        }
    };
    let mut statement = connection.prepare_cached(sql)?;
    bounded(statement.query_map(params![number(topic), to_sql(from), limit], stored)?, |record| record.payload.len())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    let tag = match (row.get(4)?, row.get::<_, Option<i64>>(5)?, row.get(6)?) {
        (Some(shard), Some(seq), Some(index)) => Some(OutputTag { shard, seq: from_sql(seq), index }),
        _ => None,
    };
    Ok(StoredRecord { offset: from_sql(row.get(0)?), ts: row.get(1)?, key: row.get(2)?, payload: row.get(3)?, tag })
}

/// The inputs from an id on, in the order of their appends, each with its id.
pub(super) fn inputs(connection: &Connection, from_id: i64, limit: usize) -> rusqlite::Result<Vec<(i64, InputRecord)>> {
    let mut statement =
        connection.prepare_cached("SELECT id, topic, position, ts, key, payload FROM input WHERE id >= ? ORDER BY id LIMIT ?")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    bounded(statement.query_map(params![from_id, limit], input)?, |(_, record)| record.payload.len())
}

fn input(row: &Row<'_>) -> rusqlite::Result<(i64, InputRecord)> {
    let topic = match row.get(1)? {
        0 => InputTopic::Intents,
        1 => InputTopic::Executions,
        2 => InputTopic::Prices,
        3 => InputTopic::Control,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    let source = Source { topic, partition: 0, offset: from_sql(row.get(2)?) };
    Ok((row.get(0)?, InputRecord { source, ts: row.get(3)?, key: row.get(4)?, payload: row.get(5)? }))
}

/// The id of the first input of a topic at or above an offset.
pub(super) fn id_at(connection: &Connection, topic: InputTopic, offset: u64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM input WHERE topic = ? AND position >= ? ORDER BY position LIMIT 1";
    connection.prepare_cached(sql)?.query_row(params![number(Topic::Input(topic)), to_sql(offset)], |row| row.get(0)).optional()
}

/// The id that the next input will have at least.
pub(super) fn next_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM input", [], |row| row.get(0))
}

pub(super) fn bounded<T>(rows: impl Iterator<Item = rusqlite::Result<T>>, size: impl Fn(&T) -> usize) -> rusqlite::Result<Vec<T>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let row = row?;
        bytes += size(&row);
        found.push(row);
        if bytes > READ_BYTES_MAX {
            break;
        }
    }
    Ok(found)
}
