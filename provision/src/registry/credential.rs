//! The user's credentials: Docker's configuration, and the programs that it names.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::Problem;

/// What Docker calls its own registry.
const DOCKER: &str = "docker.io";
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// The name under which programs hand out a token that is not a password.
const TOKEN_USER: &str = "<token>";
/// What programs say when they have none.
const NOT_FOUND: &str = "credentials not found";
/// How long a program may take. Some ask a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who the user is to a registry. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// Buys tokens from the registry's realm.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials")
    }
}

/// `config.json`, as far as it applies here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entry")
    }
}

/// What a program hands out.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handed {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Docker's configuration file, by what `lookup` finds in the environment.
pub(super) fn config_file(lookup: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let given = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = given("DOCKER_CONFIG").or_else(|| Some(given("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

/// The credentials for a registry; none if the user has none for it.
pub(super) async fn credentials(registry: &str, file: Option<&Path>) -> Result<Option<Credentials>, Problem> {
    let Some(file) = file else { return Ok(None) };
    let text = match fs_err::read(file) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Problem::settings(file, error)),
    };
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        // The parser may quote what it does not understand, which may be a secret.
        Problem::settings(
            file,
            format!("line {}, column {} is not as Docker writes it", error.line(), error.column()),
        )
    })?;
    let key = if registry == DOCKER { DOCKER_KEY } else { registry };
    let helpers = &config.cred_helpers;
    let helper = helpers.get(key).or_else(|| helpers.get(registry)).unwrap_or(&config.creds_store);
    if !helper.is_empty()
        && let Some(found) = ask(helper, key, registry).await?
    {
        return Ok(Some(found));
    }
    let entry = config.auths.get(key).or_else(|| {
        let same = |other: &&String| host(other) == host(key);
        config.auths.keys().filter(same).min().and_then(|other| config.auths.get(other))
    });
    entry.map_or(Ok(None), |entry| stored(entry, registry))
}

fn stored(entry: &Entry, registry: &str) -> Result<Option<Credentials>, Problem> {
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credentials::Identity(entry.identitytoken.clone())));
    }
    if !entry.auth.is_empty() {
        let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
        let Some((user, password)) = pair else {
            return Err(Problem::credentials(
                registry,
                "their \"auth\" is not base64 of USER:PASSWORD",
                None,
            ));
        };
        return Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }));
    }
    let Entry { username: user, password, .. } = entry;
    Ok((!user.is_empty()).then(|| Credentials::Password { user: user.clone(), password: password.clone() }))
}

/// The host and port of a key, which may be a URL.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

async fn ask(helper: &str, key: &str, registry: &str) -> Result<Option<Credentials>, Problem> {
    let program = format!("docker-credential-{helper}");
    if helper.contains('/') {
        return Err(Problem::credentials(
            registry,
            format!("{program:?} is not the name of a program"),
            None,
        ));
    }
    let failed = |source| Problem::credentials(registry, format!("{program} cannot be asked"), Some(source));
    let asking = async {
        let mut command = Command::new(&program);
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(key.as_bytes()).await {
                // It answers without having read the question.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        child.wait_with_output().await
    };
    let slow = |_| failed(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
    let output = timeout(PATIENCE, asking).await.map_err(slow)?.map_err(failed)?;
    if !output.status.success() {
        // Its secrets go to the standard output only when it succeeds.
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        let text = text.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        let line = text.lines().next().unwrap_or_default();
        let what = format!("{program} ended with {}, saying {line:?}", output.status);
        return Err(Problem::credentials(registry, what, None));
    }
    let Ok(handed) = serde_json::from_slice::<Handed>(&output.stdout) else {
        return Err(Problem::credentials(registry, format!("{program} does not answer in JSON"), None));
    };
    Ok(match handed {
        Handed { username, secret } if username == TOKEN_USER => Some(Credentials::Identity(secret)),
        Handed { username, .. } if username.is_empty() => None,
        Handed { username, secret } => Some(Credentials::Password { user: username, password: secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(config: &str, registry: &str) -> Result<Option<Credentials>, Problem> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        fs_err::write(&file, config).unwrap();
        credentials(registry, Some(&file)).await
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[tokio::test]
    async fn entries_are_found_by_their_host() {
        let auth = STANDARD.encode("u:p:w");
        let config = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}}, "https://a.b:1/v2/": {{"username": "x", "password": "y"}},
            "t": {{"identitytoken": "z"}}, "e": {{}}, "bad": {{"auth": "%%"}}}}}}"#
        );
        assert_eq!(found(&config, "docker.io").await.unwrap(), password("u", "p:w"));
        assert_eq!(found(&config, "a.b:1").await.unwrap(), password("x", "y"));
        assert_eq!(found(&config, "t").await.unwrap(), Some(Credentials::Identity("z".to_owned())));
        for none in ["a.b", "e", "other"] {
            assert_eq!(found(&config, none).await.unwrap(), None);
        }
        assert!(found(&config, "bad").await.is_err());
        assert_eq!(credentials("a", Some(Path::new("/nonexistent/config.json"))).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_is_none_is_told_without_what_is_in_it() {
        let error = found(r#"{"auths": {"a": {"auth": ["c2VjcmV0"]}}}"#, "a").await.unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(text.contains("config.json cannot be used") && !text.contains("c2VjcmV0"), "{text}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = found(r#"{"credHelpers": {"a": "no-such"}}"#, "a").await.unwrap_err();
        assert!(error.to_string().contains("docker-credential-no-such cannot be asked"), "{error}");
        let error = found(r#"{"credsStore": "../x"}"#, "a").await.unwrap_err();
        assert!(error.to_string().contains("not the name of a program"), "{error}");
    }

    #[test]
    fn the_file_is_where_docker_has_it() {
        let file = |variables: &[(&str, &str)]| {
            config_file(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(file(&[("HOME", "/h")]), Some("/h/.docker/config.json".into()));
        assert_eq!(file(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d")]), Some("/d/config.json".into()));
        assert_eq!(file(&[("DOCKER_CONFIG", "")]), None);
    }
}
