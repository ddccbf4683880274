//! Talking to one server about one repository: requests with authorization, tried again where that may help.

use std::path::PathBuf;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::{
    sync::{Mutex, OnceCell},
    time::sleep,
};

use super::{
    Problem, RegistryOptions, Retry,
    authorization::{Asking, Authorization, authorize},
    challenge::challenge,
    credential::{self, Credentials},
    document::MAX_DOCUMENT,
    endpoint::{Endpoint, Security},
    http,
    retry::asked_pause,
};

/// Bytes of a complaint that are read, and characters that are passed on.
const MAX_COMPLAINT: usize = 64 << 10;
const MAX_MESSAGE: usize = 300;

/// One server and one repository.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) endpoint: Endpoint,
    repository: String,
    /// What is to be done with it, as scopes of tokens have it: `pull` or `pull,push`.
    actions: &'static str,
    client: Client,
    retry: Retry,
    plain_http: bool,
    config: Option<PathBuf>,
    base: OnceCell<Url>,
    credentials: OnceCell<Option<Credentials>>,
    authorization: Mutex<Option<Authorization>>,
}

#[derive(Deserialize)]
struct Complaints {
    #[serde(default)]
    errors: Vec<Complaint>,
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Session {
    pub(super) fn new(
        endpoint: Endpoint,
        repository: &str,
        actions: &'static str,
        options: &RegistryOptions,
    ) -> Result<Self, Problem> {
        let client =
            http::client(&endpoint.authorities, endpoint.skip_verify, |name| std::env::var(name).ok())?;
        Ok(Self {
            endpoint,
            repository: repository.to_owned(),
            actions,
            client,
            retry: options.retry,
            plain_http: options.plain_http,
            config: credential::config_file(|name| std::env::var_os(name)),
            base: OnceCell::new(),
            credentials: OnceCell::new(),
            authorization: Mutex::default(),
        })
    }

    /// The host and port, for people.
    pub(super) fn host(&self) -> &str {
        &self.endpoint.authority
    }

    pub(super) fn retry(&self) -> Retry {
        self.retry
    }

    /// The name that credentials go by.
    fn account(&self) -> &str {
        match self.endpoint.authority.as_str() {
            "registry-1.docker.io" => "docker.io",
            other => other,
        }
    }

    /// An address of the repository; `path` is what follows its name.
    pub(super) async fn url(&self, path: &str) -> Result<Url, Problem> {
        let base = self.base.get_or_try_init(|| self.find_base()).await?;
        let text = format!("{}/{}/{path}", base.as_str().trim_end_matches('/'), self.repository);
        let mut url = Url::parse(&text).map_err(|error| Problem::Invalid {
            what: format!("the address {text:?}"),
            reason: error.to_string(),
        })?;
        if let Some(registry) = &self.endpoint.mirrored {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    async fn find_base(&self) -> Result<Url, Problem> {
        let Endpoint { security, authority, prefix, .. } = &self.endpoint;
        let with = |scheme: &str| {
            let text = format!("{scheme}://{authority}{prefix}/");
            Url::parse(&text).map_err(|error| Problem::Invalid {
                what: format!("the address {text:?}"),
                reason: error.to_string(),
            })
        };
        match security {
            Security::Tls => with("https"),
            Security::Plain => with("http"),
            Security::Either => {
                let tls = with("https")?;
                match self.client.head(tls.clone()).send().await {
                    // Some servers answer the greeting in plain text, others hang up.
                    Err(error) if error.is_connect() && !http::is_distrust(&error) => with("http"),
                    _ => Ok(tls),
                }
            }
        }
    }

    /// Sends a request until there is an answer to go on with: not one that asks for authorization that can be had, nor
    /// one that a while later may be another. `make` completes the request.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        make: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Problem> {
        let (mut failures, mut authorized) = (0, false);
        loop {
            let used = self.authorization.lock().await.clone();
            let mut request = make(self.client.request(method.clone(), url.clone()));
            // What a server names as the place for an upload may be another's.
            if let Some(authorization) = used.as_ref().filter(|_| self.is_own(url)) {
                request = authorization.put(request);
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    failures += 1;
                    let pause = match error.is_connect() {
                        true => self.retry.after_connecting(failures),
                        false => self.retry.after(failures, None),
                    };
                    match pause.filter(|_| http::may_pass(&error)) {
                        Some(pause) => sleep(pause).await,
                        None => return Err(http::failure(self.host(), error)),
                    }
                    continue;
                }
            };
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !authorized && self.is_own(url) {
                authorized = true;
                if self.authorize(&response, used).await? {
                    continue;
                }
            }
            if is_passing(status) {
                failures += 1;
                if let Some(pause) = self.retry.after(failures, asked_pause(response.headers())) {
                    tracing::debug!(host = self.host(), %status, ?pause, "trying again");
                    sleep(pause).await;
                    continue;
                }
            }
            return Ok(response);
        }
    }

    /// Gets what the registry asks for, unless another request has done so meanwhile. Returns whether there is any.
    async fn authorize(&self, response: &Response, used: Option<Authorization>) -> Result<bool, Problem> {
        let Some(challenge) = challenge(response.headers()) else { return Ok(false) };
        let mut current = self.authorization.lock().await;
        if *current != used {
            return Ok(true);
        }
        let find = || credential::credentials(self.account(), self.config.as_deref());
        let credentials = self.credentials.get_or_try_init(find).await?.as_ref();
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        let asking = Asking {
            client: &self.client,
            registry: self.account(),
            credentials,
            scope: &scope,
            plain_http: self.plain_http,
        };
        if !http::is_private(response.url(), self.plain_http) && credentials.is_some() {
            let reason = "it would be sent credentials without TLS".to_owned();
            return Err(Problem::Invalid { what: format!("the address {}", self.host()), reason });
        }
        let new = authorize(&challenge, &asking).await?;
        // The same password again would be refused again.
        let is_new = Some(&new) != used.as_ref();
        *current = Some(new);
        Ok(is_new)
    }

    fn is_own(&self, url: &Url) -> bool {
        self.base.get().is_some_and(|base| base.origin() == url.origin())
    }

    /// What an answer means that is not the one that was asked for.
    pub(super) async fn refused(&self, response: Response) -> Problem {
        if response.status() == StatusCode::UNAUTHORIZED {
            let known = self.credentials.get().is_some_and(Option::is_some);
            let message = complaint(response).await;
            return Problem::Unauthorized { registry: self.account().to_owned(), known, message };
        }
        refused(self.account(), response).await
    }
}

/// Whether an answer may be another a while later.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What an answer means that is not the one that was asked for.
pub(super) async fn refused(registry: &str, response: Response) -> Problem {
    let (status, registry) = (response.status(), registry.to_owned());
    let message = complaint(response).await;
    match status {
        StatusCode::FORBIDDEN => Problem::Forbidden { registry, message },
        StatusCode::NOT_FOUND => Problem::NotFound { message },
        StatusCode::TOO_MANY_REQUESTS => Problem::TooManyRequests { message },
        status => Problem::Status { status: status.to_string(), message },
    }
}

/// What an answer says about itself, in one short line.
pub(super) async fn complaint(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_COMPLAINT {
            break;
        }
    }
    let Ok(complaints) = serde_json::from_slice::<Complaints>(&bytes) else { return String::new() };
    let first = complaints.errors.into_iter().next();
    let text =
        first.map_or(
            complaints.details,
            |first| {
                if first.message.is_empty() { first.code } else { first.message }
            },
        );
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MAX_MESSAGE).collect::<String>().trim().to_owned()
}

/// A whole answer, if it is of a size that documents have.
pub(super) async fn document(mut response: Response, host: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| http::failure(host, error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_DOCUMENT {
            let source = format!("it has more than {} MiB", MAX_DOCUMENT >> 20).into();
            return Err(Problem::Answer { what: "a document", source });
        }
    }
    Ok(bytes)
}
