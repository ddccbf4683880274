//! Tells cargo that the recipe of the node image is part of this crate: `include_dir!` sees changed files, not new ones.

fn main() {
    println!("cargo::rerun-if-changed=node-image");
}
