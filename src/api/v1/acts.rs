//! Noting in the audit what a handler does: that it begins, and how it ended.
//!
//! Invariant: what could not be noted first is not done. Deliberately absent: secrets; what changes is told by its names.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value};

use crate::api::caller::Caller;
use crate::api::problem::{ApiCode, Problem};
use crate::control::audit::Audit;

/// Something that was done, or tried.
pub struct Act<'a> {
    /// Who.
    pub actor: &'a str,
    /// From where.
    pub address: &'a str,
    /// What.
    pub action: &'static str,
    /// To what.
    pub object: &'a str,
}

/// Notes what was done; durable when it comes back.
///
/// # Errors
/// The log took it not.
pub async fn note(audit: &Audit, act: &Act<'_>, changes: Value, result: &str) -> Result<(), Problem> {
    let Act { actor, address, action, object } = act;
    let noted = audit.record(actor, address, action, object, changes, result).await;
    noted.map(drop).map_err(|error| {
        tracing::error!(%error, action, object, "an action could not be noted in the audit");
        Problem::new(ApiCode::LogUnavailable, "the audit could not be written, and what it does not say is not done")
    })
}

/// Notes that somebody begins something, does it, and notes how it ended. What could not be noted first is not done.
///
/// # Errors
/// What it ended with, or the log.
pub async fn audited<T>(
    audit: &Audit,
    act: &Act<'_>,
    changes: Value,
    done: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    note(audit, act, changes, "begun").await?;
    let done = done.await;
    let result = done.as_ref().map_or_else(|problem| problem.code().as_str(), |_| "ok");
    // That it was begun is noted already; how it ended is told all the same.
    let _ = note(audit, act, Value::Object(Map::new()), result).await;
    done.map_err(Problem::noted)
}

/// The same, of a caller.
///
/// # Errors
/// What it ended with, or the log.
pub async fn audited_of<T>(
    audit: &Audit,
    caller: &Caller,
    (action, object): (&'static str, &str),
    changes: Value,
    done: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let address = caller.address.to_string();
    audited(audit, &Act { actor: &caller.name, address: &address, action, object }, changes, done).await
}

/// What is noted of a request that was refused before anything was begun.
const REFUSED: &str = "access.refuse";
/// What is posted, and changes nothing.
const ASKING: [&str; 2] = ["/risk-rules/test", "/risk-rules/calculate-position-size"];
/// So much of its path is.
const PATH_CHARS_MAX: usize = 200;
const ID_BYTES_MAX: usize = 64;
/// A refusal waits for the audit at most so long: nothing was done that must be known.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Middleware: notes that somebody wanted to change what they may not, or may not know of.
pub async fn refusals(State(audit): State<Arc<Audit>>, request: Request, next: Next) -> Response {
    let acts = !request.method().is_safe() && !ASKING.contains(&request.uri().path());
    let object = acts.then(|| format!("{} {}", request.method(), told(request.uri().path())));
    let caller = request.extensions().get::<Caller>().cloned();
    let answer = next.run(request).await;
    if let (Some(object), Some(caller), Some(problem)) = (object, caller, answer.extensions().get::<Problem>())
        && is_of_rights(problem)
    {
        let (code, address) = (problem.code(), caller.address.to_string());
        let act = Act { actor: &caller.name, address: &address, action: REFUSED, object: &object };
        let noted = note(&audit, &act, Value::Object(Map::new()), code.as_str());
        // What could not be noted was not done either.
        let _ = tokio::time::timeout(REFUSAL_PATIENCE, noted).await;
    }
    answer
}

/// A path as it is noted. What is longer than an id can be is not repeated: it may be a secret in the wrong place.
fn told(path: &str) -> String {
    let part = |part: &str| if part.len() > ID_BYTES_MAX { "(long)".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/").chars().take(PATH_CHARS_MAX).collect()
}

fn is_of_rights(problem: &Problem) -> bool {
    let code = problem.code();
    !problem.is_noted() && matches!(code, ApiCode::Forbidden | ApiCode::UnknownAccount | ApiCode::UnknownObject)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::embedded::{EmbeddedLog, EmbeddedOptions};

    #[test]
    fn what_could_not_be_noted_is_not_even_begun() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path())).unwrap();
        let audit = Audit::start(Arc::new(log.clone())).unwrap();
        let act = Act { actor: "root", address: "127.0.0.1", action: "user.create", object: "user:ann" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut done = 0;
        let noted = runtime.block_on(audited(&audit, &act, json!({}), async {
            done += 1;
            Ok(())
        }));
        assert!(noted.is_ok());
        audit.stop();
        let refused = runtime.block_on(audited(&audit, &act, json!({}), async {
            done += 1;
            Ok(())
        }));
        assert_eq!((refused.unwrap_err().code(), done), (ApiCode::LogUnavailable, 1));
        log.close();
    }
}
