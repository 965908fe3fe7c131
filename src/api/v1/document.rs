//! The OpenAPI 3.1 document: what the areas say of themselves, and what holds for all of them.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder, Schema};

use super::PREFIX;

const ABOUT: &str = "An order gate that judges every order against risk rules. It decides on the log; this API reads what was decided \
                     and appends records. Errors are `application/problem+json` with a stable `code`. Unknown fields and parameters \
                     are refused. Answers about rules, accounts, instruments and decisions say in `X-Ordergate-Age-Ms` how long before \
                     them the books had last held all that was on the log.";

/// One document out of those of the areas.
pub fn whole(areas: impl IntoIterator<Item = OpenApi>) -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new().title("ordergate").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT)).license(Some(license));
    let components = ComponentsBuilder::new()
        .schema("Problem", problem())
        .security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("__Host-ordergate-refresh"))))
        .security_scheme("ticket", SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new("ticket"))))
        .build();
    let needs = SecurityRequirement::new("bearer", Vec::<String>::new());
    let empty = OpenApiBuilder::new().info(info.build()).components(Some(components)).security(Some([needs])).build();
    let mut document = areas.into_iter().fold(empty, |document, area| document.nest(PREFIX, area));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(id_of(method, path));
            refuses(operation);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let named = [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch)];
    named.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The method and the path's words: `put_users_name_password`. Names of handlers would be the same in every area.
fn id_of(method: &str, path: &str) -> String {
    let words = path.trim_start_matches(PREFIX).split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

/// Every operation may refuse, and all do so alike.
fn refuses(operation: &mut Operation) {
    for (status, what) in [("4XX", "Refused: `code` says why"), ("5XX", "Not possible now: `code` says why")] {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(what).content("application/problem+json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}

fn problem() -> Schema {
    let text = |about: &str| ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).description(Some(about)).build();
    let number = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).description(Some("The HTTP status")).build();
    let members = [
        ("type", "The code as a URN"),
        ("title", "The code for people"),
        ("code", "Why, for programs; stable"),
        ("detail", "Why, for people"),
        ("field", "The field or parameter at fault"),
        ("request_id", "What the log knows the request by"),
    ];
    let object = ObjectBuilder::new().description(Some("Why something was refused (RFC 9457)")).property("status", number);
    let object = members.into_iter().fold(object, |object, (name, about)| object.property(name, text(about)));
    let object = ["type", "title", "status", "code", "detail"].into_iter().fold(object, ObjectBuilder::required);
    object.additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true))).into()
}
