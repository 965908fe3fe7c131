//! The file of an embedded log while its daemon runs: triggers of SQLite refuse what a test says, as a broken disk would, but by choice.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::daemon::Daemon;

/// Kinds of the directory that people's deeds write; sessions, marks and claims come by themselves.
const DEEDS: [&str; 6] = ["user", "token", "api_key", "preference", "push", "contact"];

/// The log's file, written to beside the daemon.
pub struct LogFile {
    connection: Connection,
}

impl LogFile {
    pub fn open(dir: &Path) -> Self {
        let connection = Connection::open(dir.join("log.sqlite")).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        Self { connection }
    }

    fn run(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// From now on no row comes into a table where the condition holds.
    pub fn refuse(&self, table: &str, when: &str) {
        self.run(&format!("CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'refused'); END"));
    }

    /// The log's own tries whether it can commit again fail too.
    pub fn refuse_probes(&self) {
        self.run("CREATE TRIGGER refuse_probes BEFORE UPDATE ON topic BEGIN SELECT RAISE(ABORT, 'refused'); END");
    }

    /// From now on the ledger, and all that the gate wrote, cannot be read.
    pub fn hide_outputs(&self) {
        self.run("ALTER TABLE output RENAME TO hidden_output");
    }

    /// It can again.
    pub fn show_outputs(&self) {
        self.run("ALTER TABLE hidden_output RENAME TO output");
    }

    /// Takes everything in again.
    pub fn mend(&self) {
        let drop = "DROP TRIGGER IF EXISTS refuse_";
        self.run(&["input", "output", "directory", "probes"].map(|name| format!("{drop}{name};")).concat());
    }

    /// Which keys of the directory are deeds, as a condition.
    pub fn deeds() -> String {
        DEEDS.map(|kind| format!("CAST(key AS TEXT) LIKE '{kind}:%'")).join(" OR ")
    }

    /// A record of an operator's is taken only where a note has come that was not there at the last one.
    pub fn demand_notes(&self) {
        self.run("CREATE TABLE noted (at INTEGER NOT NULL, records INTEGER NOT NULL); INSERT INTO noted VALUES (-1, 0)");
        self.run("UPDATE noted SET at = (SELECT coalesce(max(position), -1) FROM output WHERE topic = 10)");
        let deeds = DEEDS.map(|kind| format!("CAST(NEW.key AS TEXT) LIKE '{kind}:%'")).join(" OR ");
        for (table, when) in [("input", "NEW.topic = 3".to_owned()), ("directory", format!("length(NEW.payload) > 0 AND ({deeds})"))] {
            self.run(&format!(
                "CREATE TRIGGER note_first_{table} BEFORE INSERT ON {table} WHEN {when} BEGIN \
                   SELECT RAISE(ABORT, 'not noted') WHERE NOT EXISTS (SELECT 1 FROM output WHERE topic = 10 \
                     AND position > (SELECT at FROM noted) AND instr(CAST(payload AS TEXT), '\"result\":\"begun\"') > 0); \
                   UPDATE noted SET at = (SELECT max(position) FROM output WHERE topic = 10), records = records + 1; \
                 END"
            ));
        }
        let unnoted = "INSERT INTO input (topic, position, ts, payload) VALUES (3, 1000000, 0, x'7b7d')";
        assert!(self.connection.execute_batch(unnoted).is_err(), "the file would take what nobody noted");
    }

    /// How many records had a note.
    pub fn let_through(&self) -> i64 {
        self.connection.query_row("SELECT records FROM noted", [], |row| row.get(0)).unwrap()
    }

    /// How many rows there are.
    pub fn count(&self, table: &str, when: &str) -> i64 {
        self.connection.query_row(&format!("SELECT count(*) FROM {table} WHERE {when}"), [], |row| row.get(0)).unwrap()
    }

    /// Waits until the daemon has seen that its log commits again.
    pub fn until_it_commits(&self, gate: &Daemon) {
        let begun = Instant::now();
        while gate.get("/readyz").0 != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", gate.get("/readyz"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Alters a broker key's ciphertext where it stands.
    pub fn damage(&self, id: &str) {
        let like = format!("api_key:{id}@%");
        let find = "SELECT position, CAST(payload AS TEXT) FROM directory WHERE CAST(key AS TEXT) LIKE ? AND length(payload) > 0 ORDER BY position DESC LIMIT 1";
        let (position, text): (i64, String) = self.connection.query_row(find, [&like], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let (before, after) = text.split_once("\"ciphertext\":\"").unwrap();
        let other = if after.starts_with('A') { 'B' } else { 'A' };
        let damaged = format!("{before}\"ciphertext\":\"{other}{}", &after[1..]);
        let changed = self.connection.execute("UPDATE directory SET payload = CAST(? AS BLOB) WHERE position = ?", (damaged, position));
        assert_eq!(changed.unwrap(), 1);
    }
}
