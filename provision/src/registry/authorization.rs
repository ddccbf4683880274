//! Telling a registry who asks: with a password, or with a token that is bought with it.

use reqwest::{
    Client, RequestBuilder, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::Deserialize;

use super::{Problem, challenge::Challenge, credential::Credentials, http, session};

/// What requests carry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Password { user: String, password: String },
    Token(String),
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authorization")
    }
}

impl Authorization {
    pub(super) fn put(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Password { user, password } => request.basic_auth(user, Some(password)),
            Self::Token(token) => request.bearer_auth(token),
        }
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Whom a registry is being asked as, and for what.
pub(super) struct Asking<'a> {
    pub(super) client: &'a Client,
    /// The registry's name, for errors.
    pub(super) registry: &'a str,
    pub(super) credentials: Option<&'a Credentials>,
    /// What is asked for where the challenge does not say, as in `repository:a/b:pull`.
    pub(super) scope: &'a str,
    /// Whether secrets may leave the host without TLS.
    pub(super) plain_http: bool,
}

/// Meets a challenge.
pub(super) async fn authorize(challenge: &Challenge, asking: &Asking<'_>) -> Result<Authorization, Problem> {
    let denied =
        |known, message| Problem::Unauthorized { registry: asking.registry.to_owned(), known, message };
    let (realm, service, scope) = match (challenge, asking.credentials) {
        (Challenge::Basic, Some(Credentials::Password { user, password })) => {
            return Ok(Authorization::Password { user: user.clone(), password: password.clone() });
        }
        (Challenge::Basic, known) => return Err(denied(known.is_some(), String::new())),
        (Challenge::Bearer { realm, service, scope }, _) => (realm, service.as_deref(), scope.as_deref()),
    };
    let invalid = |reason: &str| Problem::Invalid {
        what: format!("the place {realm:?}, where the registry sends for a token,"),
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(realm).map_err(|error| invalid(&error.to_string()))?;
    // Also without a password: whoever hands out the token may read all that is said with it.
    if !http::is_private(&url, asking.plain_http) {
        return Err(invalid("it is not reached by https"));
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let request = match asking.credentials {
        Some(Credentials::Identity(token)) => {
            let mut form = Url::parse("form:").map_err(|error| invalid(&error.to_string()))?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "kiln")
                .append_pair("service", service.unwrap_or_default())
                .append_pair("scope", scope.unwrap_or(asking.scope))
                .append_pair("refresh_token", token);
            let body = form.query().unwrap_or_default().to_owned();
            asking.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        }
        other => {
            let mut pairs = url.query_pairs_mut();
            if let Some(service) = service {
                pairs.append_pair("service", service);
            }
            pairs.append_pair("scope", scope.unwrap_or(asking.scope));
            drop(pairs);
            match other {
                Some(Credentials::Password { user, password }) => {
                    asking.client.get(url).basic_auth(user, Some(password))
                }
                _ => asking.client.get(url),
            }
        }
    };
    let sent = request.header(ACCEPT, "application/json").send().await;
    let response = sent.map_err(|error| http::failure(&host, error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => {
            return Err(denied(asking.credentials.is_some(), session::complaint(response).await));
        }
        _ => return Err(session::refused(asking.registry, response).await),
    }
    let malformed = |source| Problem::Answer { what: "a token", source };
    let bytes = session::document(response, &host).await?;
    // Not with the parser's words: they may quote what is secret.
    let token: Token =
        serde_json::from_slice(&bytes).map_err(|_| malformed("it is not JSON as expected".into()))?;
    let token = if token.token.is_empty() { token.access_token } else { token.token };
    if token.is_empty() { Err(malformed("it is empty".into())) } else { Ok(Authorization::Token(token)) }
}
