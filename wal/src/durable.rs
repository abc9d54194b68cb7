//! Replaces, publishes and removes files so that a crash leaves the old or the new, never less.

use crate::storage::{File, Storage};
use std::io;

/// The name under which a file is written before it gets its own.
pub fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// Gives `name` these contents, whatever it held before: after a crash it holds either the old
/// contents or the new.
pub fn replace<S: Storage>(storage: &S, name: &str, contents: &[u8]) -> io::Result<()> {
    let temporary = temporary(name);
    remove_if_there(storage, &temporary)?;
    let file = storage.create(&temporary)?;
    file.write_at(0, contents)?;
    file.sync()?;
    publish(storage, &temporary, name)
}

/// Gives a finished and synced file its name, replacing what had it.
pub fn publish<S: Storage>(storage: &S, temporary: &str, name: &str) -> io::Result<()> {
    storage.rename(temporary, name)?;
    // Durable here: `name` stands for the new contents.
    storage.sync_dir(directory_of(name))?;
    if directory_of(temporary) != directory_of(name) {
        storage.sync_dir(directory_of(temporary))?;
    }
    Ok(())
}

/// Removes a file for good; one that is not there is fine.
pub fn remove<S: Storage>(storage: &S, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    // Durable here: `name` is gone.
    storage.sync_dir(directory_of(name))
}

/// The contents of a small file; `None` if it does not exist.
pub fn read<S: Storage>(storage: &S, name: &str) -> io::Result<Option<Vec<u8>>> {
    match crate::storage::read_all(storage, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn remove_if_there<S: Storage>(storage: &S, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}
