//! Where templates are kept: one file for each image and configuration, under the state root.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Cause, FORMAT, Member, Template};
use crate::{
    Paths, Reporter, Result, Silent,
    image::Digest,
    kubeadm,
    state::file::{read_json, remove_if_exists, write_json},
};

/// How many templates are kept; those that were not used for the longest time go first. Each is a megabyte.
const KEPT: usize = 16;

/// Hexadecimal digits of a template's name.
const NAME_DIGITS: usize = 24;

/// Names what a template is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TemplateKey(String);

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// Of the template's JSON.
    sha256: String,
    template: Template,
}

impl TemplateKey {
    /// The key for a node's kubeadm configuration: everything in it but the cluster's own names, addresses and secrets
    /// counts, and so do the image and the patches that kubeadm finds in the node. `None` when the configuration names the cluster in a place of the user's, where
    /// nobody could tell whether another cluster's name belongs there.
    ///
    /// # Errors
    /// Those of [`kubeadm::render`].
    pub(crate) fn new(
        image: &Digest,
        input: &kubeadm::Input<'_>,
        patches: Option<Digest>,
    ) -> Result<Option<Self>> {
        let cluster = crate::config::Cluster { name: "template".to_owned(), ..input.cluster.clone() };
        let text = kubeadm::render(&kubeadm::Input {
            ca_cert_hash: input.ca_cert_hash,
            engine: input.engine,
            cgroup_v1: input.cgroup_v1,
            ..kubeadm::Input::of_nobody(&cluster, input.index, input.kubernetes_version)
        })?;
        let addresses = [input.ipv4.map(|ip| ip.to_string()), input.ipv6.map(|ip| ip.to_string())];
        let own = addresses.into_iter().flatten().chain([input.name.to_owned()]);
        if own.into_iter().any(|own| text.contains(&own)) {
            return Ok(None);
        }
        let counts = json!([FORMAT, env!("CARGO_PKG_VERSION"), image, text, patches]);
        let mut name = Digest::of(counts.to_string().as_bytes()).hex();
        name.truncate(NAME_DIGITS);
        Ok(Some(Self(name)))
    }

    fn path(&self, paths: &Paths) -> PathBuf {
        paths.templates().join(format!("{}.json", self.0))
    }
}

/// The template for a key, if there is one. One that is damaged is removed, and told of.
pub(crate) fn find(paths: &Paths, key: &TemplateKey, reporter: &dyn Reporter) -> Option<Template> {
    let path = key.path(paths);
    let problem = match read_json::<Kept>(&path) {
        Ok(None) => return None,
        Ok(Some(kept)) if kept.format != FORMAT => "it is of another version".to_owned(),
        Ok(Some(kept)) if digest(&kept.template) != kept.sha256 => "its content has changed".to_owned(),
        Ok(Some(kept)) => {
            // The time of the file says when it was used last. That it cannot be set only makes it look older.
            let _ = fs_err::File::open(&path).and_then(|file| file.file().set_modified(SystemTime::now()));
            return Some(kept.template);
        }
        Err(error) => error.to_string(),
    };
    reporter.message(1, &format!("throwing template {} away: {problem}", path.display()));
    let _ = remove_if_exists(&path);
    None
}

/// Removes a template that has not led to a cluster.
pub(crate) fn discard(paths: &Paths, key: &TemplateKey) {
    let _ = remove_if_exists(&key.path(paths));
}

/// Keeps a template, and no more than a few.
///
/// # Errors
/// [`crate::Error::File`] when it cannot be written.
pub(crate) fn save(paths: &Paths, key: &TemplateKey, template: Template) -> Result<()> {
    let sha256 = digest(&template);
    let path = key.path(paths);
    write_json(&path, &Kept { format: FORMAT, sha256, template })?;
    prune(&paths.templates(), &path);
    Ok(())
}

/// Adds nodes to a template, of kinds that it does not know yet. One that has gone meanwhile stays away.
///
/// # Errors
/// That what is to be added would tell of the cluster it comes from, or cannot be written.
pub(crate) fn extend(paths: &Paths, key: &TemplateKey, followers: Vec<Member>) -> Result<(), Cause> {
    let Some(mut template) = find(paths, key, &Silent) else { return Ok(()) };
    for follower in followers {
        if !template.knows(&follower.key) {
            template.followers.push(follower);
        }
    }
    template.check()?;
    Ok(save(paths, key, template)?)
}

/// Removes what has not been used for the longest time, but for the one that was just written. Whoever reads one meanwhile
/// has it open, or boots without.
fn prune(directory: &Path, written: &Path) {
    let now = SystemTime::now();
    let entries = fs_err::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let others = entries.filter(|entry| entry.path() != written);
    let used = |entry: &fs_err::DirEntry| {
        let time = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
        // It was used before the clock was set back.
        Some(if time > now { SystemTime::UNIX_EPOCH } else { time })
    };
    let mut templates: Vec<_> = others.filter_map(|entry| Some((used(&entry)?, entry.path()))).collect();
    templates.sort_unstable_by(|one, other| other.cmp(one));
    for (_, path) in templates.into_iter().skip(KEPT - 1) {
        let _ = remove_if_exists(&path);
    }
}

fn digest(template: &Template) -> String {
    Digest::of(&serde_json::to_vec(template).unwrap_or_default()).hex()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::template::Origin;

    fn template() -> Template {
        let origin = Origin {
            cluster: "c".to_owned(),
            node: "c-control-plane".to_owned(),
            addresses: Vec::new(),
            endpoint: "c-control-plane:6443".to_owned(),
            ca: "CA".to_owned(),
            front_proxy_ca: "CA".to_owned(),
        };
        let first = Member::new(TemplateKey(String::new()), origin, Vec::new(), &json!({}));
        Template { objects: Vec::new(), pods: Vec::new(), first, followers: Vec::new() }
    }

    fn paths() -> (tempfile::TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        (directory, paths)
    }

    #[test]
    fn a_template_that_was_damaged_is_thrown_away() {
        let (_directory, paths) = paths();
        let key = TemplateKey("k".to_owned());
        assert!(find(&paths, &key, &Silent).is_none());
        for damage in
            [|text: String| text.replace("c-control", "x-control"), |text: String| text[..50].to_owned()]
        {
            save(&paths, &key, template()).unwrap();
            assert!(find(&paths, &key, &Silent).is_some());
            let path = key.path(&paths);
            let text = fs_err::read_to_string(&path).unwrap();
            fs_err::write(&path, damage(text)).unwrap();
            assert!(find(&paths, &key, &Silent).is_none());
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_least_used_templates_go() {
        let (_directory, paths) = paths();
        for number in 0..KEPT + 3 {
            save(&paths, &TemplateKey(format!("{number:02}")), template()).unwrap();
        }
        let kept = fs_err::read_dir(paths.templates()).unwrap().count();
        assert_eq!(kept, KEPT);
        assert!(find(&paths, &TemplateKey(format!("{:02}", KEPT + 2)), &Silent).is_some());
    }

    #[test]
    fn templates_of_before_the_clock_was_set_back_go_first() {
        let (_directory, paths) = paths();
        let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
        for number in 0..KEPT {
            let key = TemplateKey(format!("{number:02}"));
            save(&paths, &key, template()).unwrap();
            let file = fs_err::File::open(key.path(&paths)).unwrap();
            file.file().set_modified(tomorrow).unwrap();
        }
        for new in ["a", "b"] {
            save(&paths, &TemplateKey(new.to_owned()), template()).unwrap();
        }
        assert_eq!(fs_err::read_dir(paths.templates()).unwrap().count(), KEPT);
        for new in ["a", "b"] {
            assert!(find(&paths, &TemplateKey(new.to_owned()), &Silent).is_some(), "{new}");
        }
    }
}
