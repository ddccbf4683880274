//! What can go wrong, one variant per step, with the object in it.

use std::{io, path::PathBuf, sync::Arc};

use crate::image::Digest;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Its message is lower case, names the object and leaves the cause to `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // === files ===
    /// A file operation failed; `source` (from `fs_err`) names the path.
    #[error("failed to {what}")]
    File {
        /// What was attempted, as it follows "failed to".
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that Kiln keeps does not hold what it should.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    // === keys and templates ===
    /// A key or certificate could not be made.
    #[error("failed to make {what}")]
    Keys {
        /// What was to be made.
        what: String,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// A node's etcd could not be asked or told something.
    #[error("failed to {what} etcd of node {node}")]
    Etcd {
        /// What was attempted, as it follows "failed to".
        what: &'static str,
        /// The node.
        node: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A control plane that was begun from a template did not come up.
    #[error("the control plane of node {node} is not up after {seconds} s{}", if kubelet.is_empty() { String::new() } else { format!("\nkubelet said last:\n{kubelet}") })]
    ControlPlane {
        /// The node.
        node: String,
        /// How long was waited.
        seconds: u64,
        /// The end of kubelet's log, where the node could still be asked.
        kubelet: String,
    },
    /// A node that follows the first of a template has not reported in time.
    #[error("kubelet of node {node} has not reported to the API within {seconds} s{}", if kubelet.is_empty() { String::new() } else { format!("\nkubelet said last:\n{kubelet}") })]
    KubeletSilent {
        /// The node.
        node: String,
        /// How long was waited.
        seconds: u64,
        /// The end of kubelet's log, where the node could still be asked.
        kubelet: String,
    },
    /// A template was asked for, and there can be none.
    #[error("there can be no template: {reason}")]
    NoTemplate {
        /// Why.
        reason: String,
    },

    /// No cluster can be booted ahead, or the one that was is of no use.
    #[error("there can be no standby: {reason}")]
    NoStandby {
        /// Why.
        reason: String,
    },
    /// Not everything in a cluster has come up, or ended.
    #[error("cluster {cluster:?} is not settled after {seconds} s")]
    Unsettled {
        /// The cluster.
        cluster: String,
        /// How long it was waited for.
        seconds: u64,
    },
    // === bench ===
    /// A program that was asked for is not on this host.
    #[error("{tool} is not on this host, and cannot {purpose}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// What it was to be used for, as it follows "cannot".
        purpose: &'static str,
    },
    /// A program that is measured has failed.
    #[error("{command} failed:{}", indented(output))]
    Bench {
        /// The program, as people call it.
        command: String,
        /// The end of what it said.
        output: String,
    },
    /// A cluster that is measured did not get to all marks.
    #[error("cluster {name:?} has not reached all marks within {seconds} s")]
    BenchLimit {
        /// The cluster.
        name: String,
        /// How long it was given.
        seconds: u64,
    },
    /// A chart could not be drawn.
    #[error("the chart cannot be drawn: {problem}")]
    Chart {
        /// Why not.
        problem: String,
    },

    // === runtime and network ===
    /// The container runtime failed.
    #[error(transparent)]
    Runtime(#[from] kiln_runtime::Error),
    /// The network failed.
    #[error(transparent)]
    Network(#[from] kiln_network::Error),

    // === image ===
    /// A digest is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("{value:?} is not a sha256 digest")]
    InvalidDigest {
        /// What was given.
        value: String,
    },
    /// An image name breaks a rule.
    #[error("{value:?} is not an image name: {problem}")]
    InvalidReference {
        /// What was given.
        value: String,
        /// The broken rule.
        problem: &'static str,
    },
    /// An operation on the image store failed.
    #[error("failed to {what}")]
    ImageStore {
        /// What was attempted, as it follows "failed to".
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The disk is full. What was being written is removed again.
    #[error("no space left in {} to {what}", path.display())]
    NoSpace {
        /// What was attempted.
        what: String,
        /// A directory on the full file system.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Content is not what its digest promises.
    #[error("{what} has digest {actual}, not {expected}")]
    DigestMismatch {
        /// The content.
        what: String,
        /// The promised digest.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// Content is referred to but not there.
    #[error("blob {digest} is not in the image store")]
    BlobMissing {
        /// The content.
        digest: Digest,
    },
    /// What an image is described by cannot be used.
    #[error("{image} is not a usable image")]
    InvalidImage {
        /// The name or digest of the image.
        image: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry of a layer cannot be unpacked: it is malformed, hostile, or the file system refuses it.
    #[error("failed to unpack {entry:?} of layer {layer}")]
    LayerEntry {
        /// The uncompressed digest of the layer.
        layer: Digest,
        /// The path of the entry as the layer gives it.
        entry: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// Something is not what images come in.
    #[error("{origin} is not an {kind}")]
    NotImages {
        /// The file, the directory or the stream.
        origin: String,
        /// What it should be.
        kind: &'static str,
        /// Why it is not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An archive ends too early.
    #[error("{origin} is truncated: it ends within {entry}")]
    ArchiveTruncated {
        /// The archive.
        origin: String,
        /// The last file that was begun.
        entry: String,
    },
    /// An archive, or a blob of a layout, cannot be read.
    #[error("failed to read {origin}")]
    ArchiveRead {
        /// The archive or layout.
        origin: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Images came without all of their content.
    #[error("{origin} is incomplete: image {image} lacks {what}")]
    ContentMissing {
        /// The archive or layout.
        origin: String,
        /// The image.
        image: String,
        /// What is not there.
        what: String,
    },
    /// An image is there, but not for this host.
    #[error("image {image} of {origin} has no manifest for {platform}")]
    NoPlatform {
        /// The archive or layout.
        origin: String,
        /// The image.
        image: String,
        /// This host's platform.
        platform: String,
        /// The platforms that it is for.
        present: Vec<String>,
    },
    /// An image is nowhere on the host.
    #[error("image {image:?} is not on this host: {}", looked.join("; "))]
    ImageNotFound {
        /// Its name.
        image: String,
        /// Where it was looked for, and why it is not there.
        looked: Vec<String>,
    },

    // === registries ===
    /// An image could not be pulled.
    #[error("failed to pull image {image} from {registry}")]
    Pull {
        /// Its name.
        image: String,
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<crate::registry::Problem>,
    },
    /// An image could not be pushed.
    #[error("failed to push image {image} to {registry}")]
    Push {
        /// What it was to be called.
        image: String,
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<crate::registry::Problem>,
    },
    /// Somebody uses the image store in a way that nothing may be taken away from it.
    #[error("the image store is in use: another kiln pulls, pushes, builds or starts nodes")]
    StoreInUse,
    /// Clusters have nodes of an image.
    #[error("image {image} is used by {}", clusters.join(", "))]
    ImageInUse {
        /// Its name.
        image: String,
        /// The clusters.
        clusters: Vec<String>,
    },

    // === build ===
    /// The host lacks programs that building a node image needs.
    #[error("building a node image needs {}", missing.join("; "))]
    MissingTools {
        /// What is needed and what was found instead, one entry each.
        missing: Vec<String>,
        /// How to get them.
        cures: Vec<String>,
    },
    /// A program of the host could not be started.
    #[error("failed to {what}: {program} cannot be started")]
    StartProgram {
        /// What it was for.
        what: String,
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program of the host failed.
    #[error("failed to {what}: {program} ended with {status}{}", indented(output))]
    Program {
        /// What it was for.
        what: String,
        /// The program.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The last lines of its output.
        output: String,
    },
    /// There is too little space to begin with.
    #[error("{} has {} MB free, a node image build needs {}", directory.display(), free >> 20, needed >> 20)]
    LittleSpace {
        /// Where the build works.
        directory: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Something is mounted in a directory of the build cache, so it cannot be removed safely.
    #[error("{} holds the mount {}", directory.display(), mount.display())]
    MountInCache {
        /// The left-over of an interrupted build.
        directory: PathBuf,
        /// What is mounted in it.
        mount: PathBuf,
    },
    /// Something that a node image was to be made from and cannot be.
    #[error("{what} is nothing to build a node image from: {reason}")]
    BuildSource {
        /// The directory, file, address or image, or the option that asks for it.
        what: String,
        /// What is wrong with it.
        reason: String,
        /// What to do instead.
        cure: String,
    },
    /// A version of Kubernetes that does not exist, or is none.
    #[error("there is no Kubernetes {version:?}")]
    KubernetesVersion {
        /// As it was asked for.
        version: String,
        /// What the registry of Go modules says.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A file of the recipe, or something made from it, is not as it should be.
    #[error("{object} is not usable for a node image: {reason}")]
    Recipe {
        /// The file or program.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// The containerd that unpacks the images of a node image failed.
    #[error("failed to unpack the images of the node image{}", indented(log))]
    Preload {
        /// The last lines it logged.
        log: String,
        /// The cause.
        #[source]
        source: Box<Error>,
    },

    /// The images inside a node image could not be unpacked, which its own containerd is to do.
    #[error("failed to unpack the images in {image}{}", indented(log))]
    UnpackImages {
        /// The node image.
        image: String,
        /// The last lines that its containerd logged.
        log: String,
        /// The cause.
        #[source]
        source: Box<Error>,
    },

    // === containerd ===
    /// Nothing answers on containerd's socket.
    #[error("failed to connect to containerd at {}", socket.display())]
    ContainerdConnect {
        /// The socket, as seen from the host.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// containerd did not come up in time.
    #[error("containerd in process {pid} does not answer after {} s", timeout.as_secs())]
    ContainerdTimeout {
        /// Init of the container it is in.
        pid: i32,
        /// How long it was waited for.
        timeout: std::time::Duration,
    },
    /// The container ended while its containerd was waited for.
    #[error("process {pid} ended before its containerd answered")]
    ContainerdGone {
        /// Init of the container.
        pid: i32,
    },
    /// A call to containerd failed.
    #[error("containerd failed to {what} {object}")]
    ContainerdCall {
        /// What it was asked to do.
        what: &'static str,
        /// With what.
        object: String,
        /// What it says.
        #[source]
        source: Box<tonic::Status>,
    },
    /// A layer does not hold what the image's configuration says.
    #[error("layer {layer} unpacks to {found}, not to {expected}")]
    LayerMismatch {
        /// Its digest.
        layer: String,
        /// The diff id of the configuration.
        expected: String,
        /// The digest of what it unpacked to.
        found: String,
    },

    // === config ===
    /// A configuration cannot be read.
    #[error("failed to read the configuration {origin}")]
    ConfigRead {
        /// What it was to come from.
        origin: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configuration is not valid; `problems` are all that is wrong with it.
    #[error("{origin} is not a valid configuration: {problems}")]
    Config {
        /// What the configuration came from.
        origin: String,
        /// What is wrong, and where.
        problems: crate::config::Problems,
    },
    /// A node lacks an address that the cluster's family calls for.
    #[error("node {node} has no {family} address")]
    NodeAddress {
        /// The node.
        node: String,
        /// The family, `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A patch cannot be read or applied.
    #[error("failed to apply {patch}")]
    Patch {
        /// Where the patch stands in the configuration.
        patch: String,
        /// What is wrong with it.
        #[source]
        source: crate::patch::Invalid,
    },

    // === kubeconfig ===
    /// Nothing says where the kubeconfig is.
    #[error("no kubeconfig path: neither --kubeconfig nor KUBECONFIG nor HOME is set")]
    KubeconfigLocation,
    /// A kubeconfig is not YAML.
    #[error("{origin} is not valid YAML")]
    KubeconfigSyntax {
        /// The file, or where the text comes from.
        origin: String,
        /// Where it goes wrong; quotes nothing of the file, which holds keys.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A kubeconfig is YAML, but not a kubeconfig.
    #[error("{origin} is not a usable kubeconfig: {what}")]
    KubeconfigShape {
        /// The file, or where the text comes from.
        origin: String,
        /// What is wrong with it.
        what: String,
    },
    /// Another program keeps the kubeconfig locked.
    #[error("kubeconfig {} is locked: {} exists", path.display(), lock.display())]
    KubeconfigLocked {
        /// The kubeconfig.
        path: PathBuf,
        /// The lock file, as kubectl and kind make it too.
        lock: PathBuf,
    },
    /// A kubeconfig cannot be read or written; it is as it was.
    #[error("failed to {what} kubeconfig {}", path.display())]
    KubeconfigFile {
        /// What was attempted.
        what: &'static str,
        /// The kubeconfig.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === host ===
    /// The host lacks something that clusters need.
    #[error("this host cannot run clusters ({check}): {detail}")]
    HostNotReady {
        /// The failed check of `doctor`.
        check: &'static str,
        /// What was found.
        detail: String,
        /// What to do about it.
        cure: Option<String>,
    },
    /// A kernel setting cannot be read or written.
    #[error("failed to {what} kernel setting {name}")]
    Sysctl {
        /// What was attempted.
        what: &'static str,
        /// The setting, such as `net.ipv4.ip_forward`.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === services ===
    /// A variable of the environment that a service gets its settings from is missing or wrong.
    #[error("the environment variable {name} {problem}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// What Kubernetes gives a pod to reach the API with cannot be used.
    #[error("this pod's access to the API cannot be used")]
    PodAccess {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service (the balancer, the proxy) lacks something.
    #[error("failed to {what}")]
    Service {
        /// What was attempted, as it follows "failed to".
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process that serves ports which the kernel cannot translate does not do so.
    #[error("failed to publish {ports}: {reason}")]
    ProxyStart {
        /// The ports.
        ports: String,
        /// What the process says, or what became of it.
        reason: String,
    },

    // === state ===
    /// A name cannot name a cluster or node.
    #[error("{name:?} is not a valid cluster name: {reason}")]
    InvalidName {
        /// The name.
        name: String,
        /// The broken rule.
        reason: &'static str,
    },
    /// A record was written by a later version of Kiln.
    #[error("{} has layout version {found}, this kiln knows up to {supported}", path.display())]
    StateSchema {
        /// The record.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The latest version that is understood.
        supported: u32,
    },
    /// A lock file cannot be used.
    #[error("failed to lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === cluster ===
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// There is a cluster of that name.
    #[error("a cluster named {name:?} already exists")]
    ClusterExists {
        /// The name.
        name: String,
    },
    /// There is no cluster of that name.
    #[error("no cluster named {cluster:?}")]
    NoSuchCluster {
        /// The name.
        cluster: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// There is no node of that name.
    #[error("no node named {node:?}")]
    NoSuchNode {
        /// The name.
        node: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The node's init has ended or was never started.
    #[error("node {node} is not running")]
    NodeNotRunning {
        /// The node.
        node: String,
    },
    /// There is no node to do something with.
    #[error("no nodes found for cluster {cluster:?}")]
    NoNodes {
        /// The cluster.
        cluster: String,
        /// The clusters there are.
        known: Vec<String>,
    },
    /// A cluster has no node of that name, or none that runs pods.
    #[error("unknown node: {node:?}")]
    UnknownNode {
        /// The node.
        node: String,
        /// Those of the cluster.
        known: Vec<String>,
    },
    /// Nodes have ended or were never started.
    #[error("not running: {}", nodes.join(", "))]
    NodesNotRunning {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// An image did not get into all nodes.
    #[error("failed to load image {image}:{}", list(errors))]
    LoadImage {
        /// The image.
        image: String,
        /// One for each node that does not have it.
        errors: Vec<Error>,
    },
    /// What is to go into nodes is not as it should be, or cannot be kept on the host: no node's fault.
    #[error(transparent)]
    Unfit {
        /// The cause, which several nodes may tell.
        source: Arc<Error>,
    },
    /// An image did not get into a node.
    #[error("node {node}")]
    LoadIntoNode {
        /// The node.
        node: String,
        /// The cause.
        #[source]
        source: Box<Error>,
    },
    /// The configuration asks for something this version cannot do.
    #[error("{feature} is not supported yet")]
    NotSupported {
        /// What was asked for.
        feature: String,
    },
    /// The image store does not have the image.
    #[error("image {image} is not in the image store")]
    NoSuchImage {
        /// Its name.
        image: String,
    },
    /// The image is for other hosts.
    #[error(
        "image {image} is for {platform}, and this host is {}/{}",
        std::env::consts::OS,
        oci_spec::image::Arch::default()
    )]
    ForeignImage {
        /// Its name.
        image: String,
        /// What it is for.
        platform: String,
    },
    /// The image does not hold what a node needs.
    #[error("{image} is not a node image: it has no /kind/version")]
    NotANodeImage {
        /// Its name.
        image: String,
    },
    /// `KILN_SUBNET_POOL` or `KILN_SUBNET_POOL6` is not a network of its family.
    #[error("{variable} is {pool:?}, which is not an {} network such as {}", pool_of(variable).0, pool_of(variable).1)]
    SubnetPool {
        /// The variable.
        variable: &'static str,
        /// What it is.
        pool: String,
    },
    /// Every network of the pool overlaps a route of the host's or another cluster.
    #[error("no network for the cluster is left in {pool}: {} of its subnets are in use{}", taken.len(), first_of(taken))]
    PoolExhausted {
        /// The pool.
        pool: ipnet::IpNet,
        /// What overlaps it: routes and addresses of the host, networks of clusters.
        taken: Vec<ipnet::IpNet>,
    },
    /// A port cannot be published in this way.
    #[error(
        "{mapping} cannot be published: SCTP is translated by the kernel only, within one address family and not from [::1]"
    )]
    Unpublishable {
        /// The mapping.
        mapping: String,
    },
    /// The cluster's network has no address left.
    #[error("the cluster's network has no address for node number {}", nodes + 1)]
    SubnetFull {
        /// Nodes that have one.
        nodes: usize,
    },
    /// `apiServerAddress` is not an address.
    #[error("apiServerAddress {address:?} is not an IP address")]
    ApiAddress {
        /// What it is.
        address: String,
    },
    /// A port of the host is in use.
    #[error("port {address} is taken{}", by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    PortTaken {
        /// Address and port; port 0 when no free one was found.
        address: std::net::SocketAddr,
        /// By whom, where that is known.
        by: Option<String>,
    },
    /// The source of an extra mount does not exist.
    #[error("the host path {} of an extraMount does not exist", path.display())]
    MountSource {
        /// The path.
        path: PathBuf,
    },
    /// The source of an extra mount cannot give or receive later mounts.
    #[error("the host path {} of an extraMount with propagation {propagation} is on a mount that is not {wanted}", path.display())]
    MountSharing {
        /// The path.
        path: PathBuf,
        /// What the configuration asks for.
        propagation: &'static str,
        /// What the mount would have to be.
        wanted: &'static str,
    },
    /// The host has no IPv6.
    #[error("ipFamily {family} needs IPv6, which is off on this host")]
    NoIpv6 {
        /// The family that was asked for.
        family: &'static str,
    },
    /// The kernel has not what a mode of kube-proxy is made of.
    #[error("kubeProxyMode {mode} needs {missing}, which this kernel does not have")]
    KubeProxyMode {
        /// The mode.
        mode: &'static str,
        /// The kernel's feature.
        missing: &'static str,
    },
    /// A subnet of the configuration overlaps something that is there.
    #[error("{what} {subnet} overlaps {with}")]
    SubnetClash {
        /// Whose subnet it is: `podSubnet` or `serviceSubnet`.
        what: &'static str,
        /// The subnet.
        subnet: ipnet::IpNet,
        /// What it overlaps.
        with: String,
    },
    /// A subnet of the configuration has no room.
    #[error("{what} {subnet} is too small: {reason}")]
    SubnetSize {
        /// Whose subnet it is: `podSubnet` or `serviceSubnet`.
        what: &'static str,
        /// The subnet.
        subnet: ipnet::IpNet,
        /// What needs the room.
        reason: String,
    },
    /// The load balancer does not accept connections.
    #[error("the load balancer {node} does not answer{}", indented(console))]
    Balancer {
        /// Its node.
        node: String,
        /// The end of its console.
        console: String,
    },
    /// A file inside a node could not be read or written.
    #[error("failed to {what} {path} in node {node}")]
    NodeFile {
        /// `read` or `write`.
        what: &'static str,
        /// The node.
        node: String,
        /// The path in the node.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Files could not be copied between the host and a node.
    #[error("failed to copy {from} to {to}")]
    Copy {
        /// Where they are.
        from: String,
        /// Where they were to go.
        to: String,
        /// The cause, which names the file.
        #[source]
        source: io::Error,
    },
    /// A part of a cluster's logs could not be had.
    #[error("failed to export {what} of node {node}")]
    NodeLog {
        /// The node.
        node: String,
        /// What was to be exported.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Some of a cluster's logs could not be had; the others are written.
    #[error("some of the logs of cluster {cluster:?} could not be exported:{}", list(errors))]
    ExportLogs {
        /// The cluster.
        cluster: String,
        /// What is missing, and why.
        errors: Vec<Error>,
    },
    /// A node keeps no journal.
    #[error("node {node} keeps no journal")]
    NoJournal {
        /// The node.
        node: String,
    },
    /// A node's init ended while the node was needed.
    #[error("node {node} ended while it was booting")]
    NodeEnded {
        /// The node.
        node: String,
    },
    /// A node's systemd did not reach its default target.
    #[error("node {node} has not booted within {seconds} s")]
    NodeBoot {
        /// The node.
        node: String,
        /// How long it was given.
        seconds: u64,
    },
    /// kubeadm failed.
    #[error(transparent)]
    Kubeadm(#[from] Box<KubeadmFailure>),
    /// The credentials of the cluster cannot be used.
    #[error("the credentials that kubeadm made cannot be used")]
    ApiConfiguration {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cluster's API refused something.
    #[error("failed to {what}")]
    Api {
        /// What was attempted.
        what: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// A manifest is not one.
    #[error("{origin} is not a Kubernetes manifest: {reason}")]
    Manifest {
        /// Where it is from.
        origin: String,
        /// What is wrong.
        reason: String,
    },

    // === registries ===
    /// A name cannot name a registry.
    #[error("{name:?} is not a valid name for a registry: {reason}")]
    RegistryName {
        /// The name.
        name: String,
        /// The broken rule.
        reason: &'static str,
    },
    /// There is a registry of that name, and it is another one than was asked for.
    #[error("there is a registry {name} already, and {difference}")]
    RegistryDiffers {
        /// The name.
        name: String,
        /// What is different, such as `its port is 5001`.
        difference: String,
    },
    /// There is no registry of that name.
    #[error("no registry named {name:?}")]
    NoSuchRegistry {
        /// The name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A registry was asked to be a cache of something that it cannot be a cache of.
    #[error("there can be no cache of {url:?}: {reason}")]
    RegistryUpstream {
        /// What was given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A registry does not accept connections.
    #[error("the registry {name} does not answer{}", indented(console))]
    RegistrySilent {
        /// The registry.
        name: String,
        /// The end of its console.
        console: String,
    },
    /// Parts of a registry could not be removed.
    #[error("parts of registry {name} could not be removed:{}", list(errors))]
    RegistryLeftovers {
        /// The registry.
        name: String,
        /// One for each part.
        errors: Vec<Error>,
    },

    /// Parts of a cluster could not be removed.
    #[error("parts of cluster {cluster:?} could not be removed:{}", list(errors))]
    Leftovers {
        /// The cluster.
        cluster: String,
        /// One for each part.
        errors: Vec<Error>,
    },
}

impl Error {
    /// For a failed file operation; `what` follows "failed to".
    pub(crate) fn file(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, source }
    }

    /// For something a service lacks; `what` follows "failed to".
    pub(crate) fn service(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Service { what, source }
    }

    /// For a refused request to a cluster's API; `what` follows "failed to".
    pub(crate) fn api(what: String) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { what, source: Box::new(source) }
    }
}

/// What is known when kubeadm has failed on a node.
#[derive(Debug, thiserror::Error)]
#[error(
    "{command} failed on node {node} with {status}\n--- the end of {} ---\n{output}\n--- kubelet ---\n{kubelet}",
    log.display()
)]
pub struct KubeadmFailure {
    /// The node.
    pub node: String,
    /// `kubeadm init` or `kubeadm join`.
    pub command: String,
    /// How it ended.
    pub status: String,
    /// Where all of its output is.
    pub log: PathBuf,
    /// The last lines of its output.
    pub output: String,
    /// The last lines of kubelet's journal.
    pub kubelet: String,
}

/// Several errors with their causes, each on a line of its own.
fn list(errors: &[Error]) -> String {
    let line = |error: &Error| {
        let mut text = format!("\n  {error}");
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Errors of other crates often repeat their cause in their own message.
            if !text.contains(&cause_text) {
                text.push_str(&format!(": {cause_text}"));
            }
            source = cause.source();
        }
        text
    };
    errors.iter().map(line).collect()
}

/// The family of a pool's variable, and an example.
fn pool_of(variable: &str) -> (&'static str, &'static str) {
    if variable.ends_with('6') { ("IPv6", "fd00:6b69:6c6e::/48") } else { ("IPv4", "172.30.0.0/16") }
}

/// The first few of many.
fn first_of(nets: &[ipnet::IpNet]) -> String {
    let shown: Vec<String> = nets.iter().take(3).map(ToString::to_string).collect();
    let more = if nets.len() > shown.len() { ", …" } else { "" };
    if shown.is_empty() { String::new() } else { format!(" ({}{more})", shown.join(", ")) }
}

/// An error in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Program output as the end of a message, on lines of its own.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("\n  {line}")).collect()
}
