//! Loss statements in and out.
