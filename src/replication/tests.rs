//! Tests of the core as a whole: a small world of nodes, random and scripted.

mod random;
mod scripts;
mod world;
