//! How the rig starts `standfast dev`.

use crate::ports::{self, PER_NODE};
use crate::proxy::Port;
use crate::spec::Spec;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where nodes listen to each other, and where `dev --peer-proxies` tells them that they do.
pub fn peer_ports(base: u16, spec: &Spec) -> Vec<Port> {
    let port = |node: u32| {
        let first = base + PER_NODE * u16::try_from(node).expect("few nodes");
        Port {
            node,
            told: first + 3,
            real: first + 1,
        }
    };
    (0..spec.nodes()).map(port).collect()
}

/// Starts it on these ports, with what it makes in `d` below `scratch`.
pub fn start_dev(binary: &Path, scratch: &Path, base: u16, spec: &Spec) -> Child {
    assert!(spec.nodes() * u32::from(PER_NODE) <= u32::from(ports::PER_RANGE));
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(scratch.join("dev.log"))
        .expect("the scratch directory is writable");
    let mut command = Command::new(binary);
    command
        .arg("dev")
        .arg("--dir")
        .arg(scratch.join("d"))
        .args(["--port", &base.to_string()]);
    command.args(["--sync", &spec.sync.to_string()]);
    command.args(["--async", &spec.asynchronous.to_string()]);
    command.args(["--witness", &spec.witness.to_string()]);
    if let Some(protection) = spec.protection {
        command.args(["--protection", protection]);
    }
    if let Some(acks) = spec.acks {
        command.args(["--acks", acks]);
    }
    if let Some(place) = &spec.archive {
        command.args(["--archive", place]);
    }
    if let Some(recipient) = &spec.archive_recipient {
        command.args(["--archive-recipient", recipient]);
    }
    if spec.proxied {
        command.arg("--peer-proxies");
    }
    command
        .envs(spec.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a handle can be doubled"))
        .stderr(log)
        .spawn()
        .expect("the binary can be started")
}
