//! What is asked of each system: requests that are encoded once and patched, and answers that are
//! checked without being parsed where that can be.

pub mod batches;
pub mod etcd;
pub mod pipeline;
pub mod skew;
