//! What the fuzz targets check, one module for each. All of them are about text and archives that strangers write.
//!
//! Inputs of archives are recipes (see [`recipe`]), so that what a fuzzer changes is the content of headers and not their
//! checksums, and so that seeds and findings can be read.

pub mod config;
pub mod images;
pub mod layer;
pub mod recipe;
pub mod reference;
pub mod scene;
