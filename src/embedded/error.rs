//! SQLite's errors in the port's words.

use std::io;

use rusqlite::ErrorCode;

use crate::log::LogError;

/// What an error of SQLite means for the log.
pub(super) fn log_error(error: &rusqlite::Error) -> LogError {
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LogError::Busy { detail },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LogError::Corrupt { detail },
        Some(ErrorCode::DiskFull) => LogError::Full { detail },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => LogError::ReadOnly { detail },
        // The rest are the operating system's, or ours, and the text says which.
        Some(_) | None => LogError::Io { detail },
    }
}

/// What an error of the operating system means for the log.
pub(super) fn of_io(error: &io::Error) -> LogError {
    let detail = error.to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Full { detail },
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => LogError::ReadOnly { detail },
        // As above.
        _ => LogError::Io { detail },
    }
}
