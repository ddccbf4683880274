//! A network namespace beside the host's, with a veth pair between them.

use std::{
    net::Ipv4Addr,
    process::{Child, Command},
    time::Duration,
};

use crate::{eventually, host::run};

/// The namespace and its link; both gone when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    link: &'static str,
}

impl Namespace {
    /// Makes the namespace, and a veth pair with `host` on the host's end, which is called `link`, and `inner` on the
    /// other. Both are of one /24.
    ///
    /// # Panics
    /// When a step fails; needs root, iproute2 and util-linux.
    #[must_use]
    pub fn open(link: &'static str, host: Ipv4Addr, inner: Ipv4Addr) -> Self {
        // It dies with the thread that opens it, so that a killed test leaves no namespace behind.
        let holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "3600"])
            .spawn()
            .expect("setpriv and unshare (util-linux) run");
        let namespace = Self { holder, link };
        namespace.wait();

        let pid = namespace.holder.id().to_string();
        ip(&["link", "add", "name", link, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        ip(&["address", "add", &format!("{host}/24"), "dev", link]);
        ip(&["link", "set", link, "up"]);
        let enter = format!("--net={}", namespace.path());
        run("nsenter", &[&enter, "ip", "address", "add", &format!("{inner}/24"), "dev", "eth0"]);
        run("nsenter", &[&enter, "ip", "link", "set", "eth0", "up"]);
        namespace
    }

    /// The file to enter it by.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    fn wait(&self) {
        let own = fs_err::read_link("/proc/self/ns/net").expect("the kernel has network namespaces");
        let is_apart = || fs_err::read_link(self.path()).is_ok_and(|other| other != own);
        // Nothing tells when another process changes its namespace.
        eventually(Duration::from_secs(10), Duration::from_millis(5), is_apart, || {
            "unshare made no network namespace".to_owned()
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The namespace may outlive its last process for a moment; the link must not.
        let _ = Command::new("ip").args(["link", "delete", self.link]).status();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn ip(args: &[&str]) {
    run("ip", args);
}
