//! `/api/v1`: the areas of the API put together, and the OpenAPI document that describes them.
//!
//! Invariant: what is served is in the document and the other way round; both come from the same `routes()` of each area. What is
//! not in [`public`] is behind [`identify`]. Deliberately absent: what an area does; each has its own file.

pub mod account_writes;
pub mod accounts;
mod acts;
mod api_key_views;
mod api_keys;
mod audit;
mod auth;
pub mod books;
mod changing;
pub mod charts;
pub mod decisions;
mod document;
pub mod idempotency;
#[cfg(test)]
mod instances_world;
pub mod instruments;
pub mod json;
pub mod notification_contacts;
mod notification_desk;
pub mod notification_preferences;
pub mod notifications;
pub mod page;
mod people_desk;
pub mod portfolio_risk;
pub mod risk_checks;
pub mod risk_rules;
mod secret_body;
pub mod system;
mod tokens;
pub mod turns;
mod users;
mod vault;
#[cfg(test)]
mod vault_tests;
pub mod versions;
pub mod words;
pub mod ws;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use super::caller::{Door, acting, identify, locate};
use super::positions::{directory_arrived, directory_placed, directory_reached};
use crate::control::directory::DirectoryService;
use crate::log::Topics;

use super::{Face, intents, records, topics};

pub use api_keys::VaultDesk;
pub use notification_desk::NotifyDesk;
pub use people_desk::Desk;

/// Where all of it is.
pub const PREFIX: &str = "/api/v1";
/// Where the document is served.
const DOCUMENT: &str = "/api/openapi.json";
/// Where it can be read and tried.
const DOCS: &str = "/api/docs";

/// The areas of other rooms, with their states. Each also belongs into [`openapi`].
#[derive(Default)]
pub struct Areas {
    /// What only someone may ask who proved who they are: handlers find a `Caller`.
    pub inside: Vec<OpenApiRouter>,
    /// The same of what is written to the directory.
    pub in_directory: Vec<OpenApiRouter>,
    /// What proves by itself who asks, or tells nothing to strangers: handlers find an `Address`.
    pub outside: Vec<OpenApiRouter>,
    /// The directory whose positions are told and waited for.
    pub directory: Option<Arc<DirectoryService>>,
}

/// Records, intents, topics: what the daemon had first.
fn face_routes() -> OpenApiRouter<Face> {
    OpenApiRouter::new().routes(routes!(records::post)).routes(routes!(intents::post)).routes(routes!(topics::get))
}

/// About people, for those who proved who they are.
fn desk_routes() -> OpenApiRouter<Arc<Desk>> {
    auth::routes().merge(users::routes()).merge(tokens::routes())
}

/// About rules, accounts, instruments, decisions.
#[must_use]
pub fn books_routes() -> OpenApiRouter<Arc<books::Books>> {
    OpenApiRouter::new()
        .merge(risk_checks::routes())
        .merge(portfolio_risk::routes())
        .merge(risk_rules::routes())
        .merge(accounts::routes())
        .merge(account_writes::routes())
        .merge(instruments::routes())
        .merge(decisions::routes())
}

/// About notifications.
#[must_use]
pub fn notify_routes() -> OpenApiRouter<Arc<NotifyDesk>> {
    let routes = notifications::routes().merge(notification_preferences::routes()).merge(notification_contacts::routes());
    routes.layer(from_fn(acting))
}

/// What mails and messages lead to.
#[must_use]
pub fn notify_public_routes() -> OpenApiRouter<Arc<NotifyDesk>> {
    notification_contacts::public_routes()
}

/// About what was done.
#[must_use]
pub fn audit_routes() -> OpenApiRouter<Arc<dyn Topics>> {
    audit::routes()
}

/// About broker keys and the vault.
#[must_use]
pub fn vault_routes() -> OpenApiRouter<Arc<VaultDesk>> {
    api_keys::routes().merge(vault::routes())
}

/// The document: all areas, whether they run here or not.
#[must_use]
pub fn openapi() -> OpenApi {
    document::whole([
        face_routes().split_for_parts().1,
        auth::public_routes().split_for_parts().1,
        desk_routes().split_for_parts().1,
        books_routes().split_for_parts().1,
        system::routes().split_for_parts().1,
        audit_routes().split_for_parts().1,
        charts::routes().split_for_parts().1,
        vault_routes().split_for_parts().1,
        notify_routes().split_for_parts().1,
        notify_public_routes().split_for_parts().1,
        ws::routes().split_for_parts().1,
    ])
}

/// The document as `schemas/openapi.json` has it.
#[must_use]
pub fn openapi_json() -> String {
    let text = openapi().to_pretty_json().unwrap_or_default();
    format!("{text}\n")
}

/// The paths, for a daemon with this face; `more` are the areas of other rooms.
pub fn router(face: Face, desk: Option<Arc<Desk>>, door: &Door, more: Areas) -> Router {
    let (mut in_directory, mut outside) = (OpenApiRouter::new(), OpenApiRouter::new());
    if let Some(desk) = &desk {
        in_directory = in_directory.merge(desk_routes().with_state(desk.clone()));
        let sessions = auth::public_routes().with_state(desk.clone());
        let directory = desk.people.directory().clone();
        outside = outside.merge(sessions.layer(from_fn_with_state(directory, directory_placed)));
    }
    in_directory = more.in_directory.into_iter().fold(in_directory, OpenApiRouter::merge);
    if let Some(directory) = &more.directory {
        in_directory = in_directory.layer(from_fn_with_state(directory.clone(), directory_placed));
    }
    let mut inside = more.inside.into_iter().fold(in_directory, OpenApiRouter::merge);
    if let Some(desk) = &desk {
        inside = inside.layer(from_fn_with_state(desk.audit.clone(), acts::refusals));
    }
    // Orders and records have decisions and dead letters of their own.
    inside = inside.merge(face_routes().with_state(face));
    outside = more.outside.into_iter().fold(outside, OpenApiRouter::merge);
    let at_prefix = |routes: OpenApiRouter| OpenApiRouter::new().nest(PREFIX, routes).split_for_parts().0;
    let inside = at_prefix(inside).route_layer(from_fn(directory_reached)).route_layer(from_fn_with_state(door.clone(), identify));
    let outside = at_prefix(outside).merge(docs()).route_layer(from_fn_with_state(door.clone(), locate));
    let all = inside.merge(outside);
    match more.directory {
        Some(directory) => all.layer(from_fn_with_state(directory, directory_arrived)),
        None => all,
    }
}

/// The page that shows the document, with everything that it needs.
fn docs() -> Router {
    SwaggerUi::new(DOCS).url(DOCUMENT, openapi()).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_in_the_repository_is_the_one_that_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/openapi.json");
        if std::env::var_os("ORDERGATE_BLESS").is_some() {
            std::fs::write(&path, openapi_json()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text == openapi_json(), "run `ORDERGATE_BLESS=1 cargo test --lib api::v1::` and look at the difference");
    }

    /// Where a value's schema says that it is a number with a fraction.
    fn numbers(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        let is_number = |kind: &serde_json::Value| kind == "number";
        if is_number(&value["type"]) || value["type"].as_array().is_some_and(|kinds| kinds.iter().any(is_number)) {
            found.push(at.to_owned());
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            numbers(inner, &format!("{at}/{name}"), found);
        }
        for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
            numbers(inner, &format!("{at}/{index}"), found);
        }
    }

    #[test]
    fn decimals_are_strings_but_in_charts() {
        let mut found = Vec::new();
        numbers(&serde_json::to_value(openapi()).unwrap(), "", &mut found);
        let charts = ["/paths//api/v1/chart/", "/components/schemas/Indicator", "/components/schemas/OhlcvBar"];
        assert!(found.iter().any(|at| at.starts_with(charts[2])), "{found:?}");
        // A browser's subscription is as browsers write it.
        found.retain(|at| !charts.iter().any(|chart| at.starts_with(chart)) && !at.ends_with("/PushSubscribe/properties/expirationTime"));
        assert_eq!(found, [] as [&str; 0]);
    }

    #[test]
    fn every_list_has_pages_of_at_most_500() {
        let document = serde_json::to_value(openapi()).unwrap();
        // Of charts as many as lines need; what one has of one's own is a handful; a topic is a stream.
        let few = ["notification-contacts", "notification-preferences", "push-subscriptions"].map(|list| format!("{PREFIX}/{list}"));
        let mut lists = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            let schema = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].as_str();
            let members = |name: &str| &document["components"]["schemas"][name.rsplit('/').next().unwrap()]["properties"];
            if schema.is_none_or(|name| members(name)["items"].is_null()) || few.contains(path) {
                continue;
            }
            lists += 1;
            let most = if path.contains("/chart/") { 5_000 } else { 500 };
            let parameters = item["get"]["parameters"].as_array().unwrap();
            let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
            assert_eq!((&limit["schema"]["minimum"], &limit["schema"]["maximum"]), (&1.into(), &most.into()), "{path}");
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == "cursor") && !members(schema.unwrap())["next_cursor"].is_null(),
                "{path}"
            );
        }
        assert!(lists >= 14, "{lists}");
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_a_tag_and_words() {
        let document = serde_json::to_value(openapi()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut ids = BTreeSet::new();
        let mut count = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            assert!(path.starts_with("/api/v1/"), "{path}");
            for (method, operation) in item.as_object().unwrap().iter().filter(|(_, operation)| operation.get("responses").is_some()) {
                count += 1;
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(ids.insert(id.clone()), "{method} {path}: {id} twice");
                assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{method} {path}");
                assert!(operation["responses"]["4XX"].is_object(), "{method} {path}");
            }
        }
        assert!(count >= 18, "{count}");
    }
}
