//! Tests of the core as a whole: a small world of nodes, random and scripted.

mod random;
mod rules;
mod scripts;
mod world;
