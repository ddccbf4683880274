//! Making a registry, or starting one again.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kiln_network::Endpoint;
use kiln_runtime::{ContainerSpec, Mount, Process, Propagation, RootFilesystem};

use super::{
    super::{
        Cancel, blocking::Steps, bootstrap::last_lines, create::phase, load_balancer::listens, node,
        outbound, plan, ports, publication::publish_ports,
    },
    DEFAULT_PORT, cgroup, delete, identity, nodes, proxy_cgroup,
    upstream::Upstream,
    validate_name,
};
use crate::{
    Error, Paths, Reporter, Result, build,
    config::{IpFamily, Networking},
    doctor, host,
    image::{Image, Store},
    state::{self, Phase, REGISTRY_PORT, RegistryRecord},
};

/// Where a registry keeps its images, in its container.
const DATA: &str = "/var/lib/registry";

/// Certificates of the authorities that the host trusts, where the distributions have them. The registry's own program
/// looks at the first place.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// What to make.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// The registry's name, by which nodes know it.
    pub name: String,
    /// The port of the host's `127.0.0.1` and `[::1]`; 0 has a free one chosen. [`DEFAULT_PORT`] for a new registry when none is given.
    pub port: Option<u16>,
    /// The registry that it should be a cache of.
    pub proxy: Option<String>,
}

/// A registry that is there.
#[derive(Clone, Debug)]
pub struct CreatedRegistry {
    /// What is known about it.
    pub record: RegistryRecord,
    /// Whether it ran already.
    pub ran: bool,
}

/// Makes a registry and tells the nodes of all clusters. One that runs already is left alone, but for nodes that do not
/// know it; one that does not run any more is started again with the images it had. When making it fails or is cancelled,
/// everything is removed again.
///
/// # Errors
/// What went wrong first, or [`Error::Interrupted`].
pub async fn create(
    paths: &Paths,
    options: &RegistryOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<CreatedRegistry> {
    validate_name(&options.name)?;
    let proxy = options.proxy.as_deref().map(Upstream::parse).transpose()?;
    doctor::preflight(paths)?;
    let steps = Steps::default();
    // Without the lock: the first time it takes a minute.
    let (image, layers) = tokio::select! {
        image = ensure_image(paths, &steps, reporter) => image?,
        () = cancel.triggered() => {
            steps.settle().await;
            return Err(Error::Interrupted);
        }
    };
    let _lock = tokio::select! {
        lock = state::registry_lock(paths, reporter) => lock?,
        () = cancel.triggered() => return Err(Error::Interrupted),
    };
    let former = state::load_registry(paths, &options.name)?;
    if let Some(record) = &former {
        compare(record, options, proxy.as_ref())?;
        if record.phase == Phase::Ready && record.process.as_ref().is_some_and(Process::is_alive) {
            nodes::tell_all(paths, reporter).await?;
            return Ok(CreatedRegistry { record: record.clone(), ran: true });
        }
    }
    if state::registry_exists(paths, &options.name)? {
        reporter.message(0, &format!("Registry {:?} does not run; starting it again", options.name));
        delete::remove_all(paths, &options.name, true, reporter).await?;
    }
    let proxy =
        proxy.map(|upstream| upstream.url).or(former.as_ref().and_then(|record| record.proxy.clone()));
    let port = options.port.or(former.as_ref().map(|record| record.port)).unwrap_or(DEFAULT_PORT);
    check_upstream(paths, proxy.as_deref())?;

    let kept = paths.registry_data(&options.name).exists();
    let wanted = Wanted { name: &options.name, port, proxy, image, layers };
    let title = format!("Starting registry {:?} 🗃", options.name);
    let made = tokio::select! {
        made = phase(reporter, &title, make(paths, wanted, reporter, &steps)) => made,
        () = cancel.triggered() => Err(Error::Interrupted),
    };
    match made {
        Ok(record) => {
            nodes::tell_all(paths, reporter).await?;
            Ok(CreatedRegistry { record, ran: false })
        }
        Err(error) => {
            reporter.step("cleaning up");
            steps.settle().await;
            if let Err(left) = delete::remove_all(paths, &options.name, kept, reporter).await {
                // The first error is the one to fix; this one says what is left.
                reporter.message(0, &format!("Warning: {left}; `kiln registry delete` tries again"));
            }
            Err(error)
        }
    }
}

struct Wanted<'a> {
    name: &'a str,
    port: u16,
    proxy: Option<String>,
    image: Image,
    /// Unpacked, topmost first.
    layers: Vec<PathBuf>,
}

/// The registry's image from the store, unpacked. It is built when it is not there.
async fn ensure_image(
    paths: &Paths,
    steps: &Steps,
    reporter: &dyn Reporter,
) -> Result<(Image, Vec<PathBuf>)> {
    let store = Store::open(&paths.images())?;
    let name = build::registry_reference();
    let image = match store.image(&name)? {
        Some(image) => image,
        None => {
            let text = format!("There is no image {} yet: building it, once on this host", name.familiar());
            reporter.message(0, &text);
            build::registry_image(paths, &store, false, reporter).await?
        }
    };
    let copy = image.clone();
    let layers = steps.run(move || store.unpack(&copy)).await?;
    Ok((image, layers))
}

/// Refuses another registry of the same name.
fn compare(record: &RegistryRecord, options: &RegistryOptions, proxy: Option<&Upstream>) -> Result<()> {
    let differs = |difference: String| Err(Error::RegistryDiffers { name: record.name.clone(), difference });
    match options.port {
        Some(port) if port != 0 && port != record.port => {
            return differs(format!("its port is {}", record.port));
        }
        _ => {}
    }
    match (proxy, &record.proxy) {
        (Some(wanted), Some(url)) if wanted.url != *url => differs(format!("it is a cache of {url}")),
        (Some(_), None) => differs("it is no cache".to_owned()),
        _ => Ok(()),
    }
}

/// Two caches of one registry would stand in each other's place.
fn check_upstream(paths: &Paths, proxy: Option<&str>) -> Result<()> {
    let Some(url) = proxy else { return Ok(()) };
    let host = |url: &str| Upstream::parse(url).map(|upstream| upstream.host).ok();
    let others = state::load_registries(paths)?;
    match others.iter().find(|other| other.proxy.as_deref().and_then(host) == host(url)) {
        Some(other) => Err(Error::RegistryUpstream {
            url: url.to_owned(),
            reason: format!("registry {} is one already", other.name),
        }),
        None => Ok(()),
    }
}

async fn make(
    paths: &Paths,
    wanted: Wanted<'_>,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<RegistryRecord> {
    let name = wanted.name;
    let mut record = reserve(paths, &wanted, reporter).await?;
    write_files(paths, &record)?;
    let log = paths.registry(name).join("proxy.log");
    publish_ports(&record.network, &record.ports(), &proxy_cgroup(name), &log, reporter).await?;
    let netns = kiln_network::new_netns()?;
    kiln_network::attach(&record.network, &record.endpoint, netns.as_fd()).await?;
    let spec = container_spec(paths, &record, &wanted);
    let inherited = netns.try_clone().map_err(Error::file("keep the registry's network namespace"))?;
    let process = steps.run(move || kiln_runtime::launch(&spec, inherited.as_fd())).await?;
    record.process = Some(process.clone());
    state::save_registry(paths, &record)?;

    reporter.step("waiting for it to listen");
    let address = record.endpoint.ipv4.map(|ipv4| SocketAddr::from((ipv4, REGISTRY_PORT)));
    let answers = match address {
        Some(address) => listens(&process, address).await,
        None => false,
    };
    if !answers {
        let console = fs_err::read_to_string(paths.registry(name).join("console.log")).unwrap_or_default();
        return Err(Error::RegistrySilent { name: name.to_owned(), console: last_lines(&console, 10) });
    }
    record.phase = Phase::Ready;
    state::save_registry(paths, &record)?;
    Ok(record)
}

/// Chooses what is not to be shared, and writes it down before another may choose.
async fn reserve(paths: &Paths, wanted: &Wanted<'_>, reporter: &dyn Reporter) -> Result<RegistryRecord> {
    let name = wanted.name;
    let _host = state::host_lock(paths, reporter).await?;
    let (port, ipv6) = ports::registry_port(paths, wanted.port)?;
    let network = plan::choose_network(paths, &identity(name), &Networking::new(IpFamily::Ipv4)).await?;
    // Its link is named after what no node can be called.
    let endpoint = Endpoint { node: name.to_owned(), ..plan::endpoint(&network, &identity(name), 0)? };
    let record = RegistryRecord {
        schema: state::SCHEMA,
        name: name.to_owned(),
        created: Timestamp::now(),
        image: wanted.image.name.familiar(),
        port,
        ipv6,
        proxy: wanted.proxy.clone(),
        network,
        endpoint,
        process: None,
        phase: Phase::Creating,
    };
    host::remember(paths)?;
    let making = |error| Error::file("make the registry's directory")(error);
    for directory in [paths.registry(name), paths.registry_data(name)] {
        fs_err::create_dir_all(&directory).map_err(making)?;
        fs_err::set_permissions(&directory, Permissions::from_mode(0o700)).map_err(making)?;
    }
    state::save_registry(paths, &record)?;
    // While the lock is held: the next to choose sees the route.
    kiln_network::create_bridge(&record.network).await?;
    Ok(record)
}

fn write_files(paths: &Paths, record: &RegistryRecord) -> Result<()> {
    let etc = paths.registry(&record.name).join("upper/etc");
    fs_err::create_dir_all(&etc).map_err(Error::file("make the registry's directory"))?;
    let gateway = record.gateway().ok_or(Error::SubnetFull { nodes: 0 })?;
    let resolv_conf = kiln_network::node_resolv_conf(gateway.into())?;
    let hosts = node::hosts_file(IpFamily::Ipv4, std::iter::once(&record.endpoint));
    for (file, text) in [("resolv.conf", &resolv_conf), ("hosts", &hosts)] {
        fs_err::write(etc.join(file), text).map_err(Error::file("write a file of the registry"))?;
    }
    Ok(())
}

fn container_spec(paths: &Paths, record: &RegistryRecord, wanted: &Wanted<'_>) -> ContainerSpec {
    let directory = paths.registry(&record.name);
    let settings = wanted.image.config.config();
    let list = |values: Option<&Vec<String>>| values.cloned().unwrap_or_default();
    let mut args = list(settings.as_ref().and_then(|settings| settings.entrypoint().as_ref()));
    args.extend(list(settings.as_ref().and_then(|settings| settings.cmd().as_ref())));
    let mut env = list(settings.as_ref().and_then(|settings| settings.env().as_ref()));
    let bind = |source: &Path, destination: &str, read_only| Mount {
        source: source.to_owned(),
        destination: destination.into(),
        read_only,
        propagation: Propagation::None,
    };
    let mut mounts = vec![bind(&paths.registry_data(&record.name), DATA, false)];
    if let Some(url) = &record.proxy {
        env.push(format!("REGISTRY_PROXY_REMOTEURL={url}"));
        let networking = Networking::new(IpFamily::Ipv4);
        let lookup = |name: &str| std::env::var(name).ok();
        env.extend(outbound::variables(
            &record.network,
            plan::subnet_pool().ok(),
            &networking,
            [record.name.as_str()],
            lookup,
        ));
        // What the host trusts, authorities of one's own among them.
        if let Some(found) = CERTIFICATES.iter().find(|path| Path::new(path).is_file()) {
            mounts.push(bind(Path::new(found), CERTIFICATES[0], true));
        }
    }
    ContainerSpec {
        id: identity(&record.name),
        directory: paths.registry_run(&record.name),
        console: directory.join("console.log"),
        exit: directory.join("exit.json"),
        root: RootFilesystem {
            lowers: wanted.layers.clone(),
            upper: directory.join("upper"),
            work: directory.join("work"),
        },
        hostname: record.name.clone(),
        args,
        env,
        mounts,
        cgroup: cgroup(&record.name),
        sysctls: node::sysctls(&record.network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry_record;

    #[test]
    fn a_registry_is_the_same_unless_something_else_is_asked_for() {
        let mut record = registry_record("r");
        let same = |record: &RegistryRecord, port, proxy: Option<&str>| {
            let options = RegistryOptions { name: "r".to_owned(), port, proxy: None };
            let proxy = proxy.map(|url| Upstream::parse(url).unwrap());
            compare(record, &options, proxy.as_ref()).map_err(|error| error.to_string())
        };
        assert_eq!(same(&record, None, None), Ok(()));
        assert_eq!(same(&record, Some(0), None), Ok(()));
        assert_eq!(same(&record, Some(5001), None), Ok(()));
        let error = same(&record, Some(5002), None).unwrap_err();
        assert_eq!(error, "there is a registry r already, and its port is 5001");
        assert!(same(&record, None, Some("quay.io")).unwrap_err().ends_with("it is no cache"));
        record.proxy = Some("https://quay.io".to_owned());
        assert_eq!(same(&record, None, Some("quay.io")), Ok(()));
        assert_eq!(same(&record, None, None), Ok(()));
        assert!(same(&record, None, Some("docker.io")).is_err());
    }

    #[test]
    fn one_cache_stands_for_a_registry() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let mut record = registry_record("r");
        record.proxy = Some("https://registry-1.docker.io".to_owned());
        state::save_registry(&paths, &record).unwrap();
        assert!(check_upstream(&paths, Some("https://quay.io")).is_ok());
        assert!(check_upstream(&paths, None).is_ok());
        let error = check_upstream(&paths, Some("https://docker.io")).unwrap_err().to_string();
        assert!(error.ends_with("registry r is one already"), "{error}");
    }
}
