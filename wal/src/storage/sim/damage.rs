//! What happens to the files behind the program's back: looked at, damaged, lost.

use super::inode::Inode;
use super::{SimDisk, memory};
use std::ops::Range;

impl SimDisk {
    /// All files by name with their lengths.
    pub fn files(&self) -> Vec<(String, u64)> {
        let shared = self.shared();
        let len = |inode| shared.inodes[inode].bytes.len() as u64;
        shared
            .names
            .iter()
            .map(|(name, inode)| (name.clone(), len(inode)))
            .collect()
    }

    /// A file's bytes as they are now; `None` if there is none of that name.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let shared = self.shared();
        let inode = shared.names.get(name)?;
        Some(shared.inodes[inode].bytes.clone())
    }

    /// Damages or makes a file behind the program's back, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut shared = self.shared();
        let inode = shared.next_inode;
        shared.next_inode += 1;
        let mut content = Inode::default();
        content.bytes = bytes;
        content.sync();
        shared.inodes.insert(inode, content);
        shared.names.insert(name.to_owned(), inode);
        shared.durable_names.insert(name.to_owned(), inode);
    }

    /// From now on these bytes of a file cannot be read, until the file is replaced.
    pub fn make_unreadable(&self, name: &str, bytes: Range<u64>) {
        let mut shared = self.shared();
        let inode = *shared.names.get(name).expect("a file to damage");
        shared.inode(inode).unreadable = Some(memory(bytes.start)..memory(bytes.end));
    }

    /// Flips one bit behind the program's back.
    pub fn flip(&self, name: &str, offset: u64, bit: u32) {
        let mut shared = self.shared();
        let inode = *shared.names.get(name).expect("a file to damage");
        let offset = usize::try_from(offset).expect("an offset in memory");
        shared.inode(inode).bytes[offset] ^= 1 << bit;
    }

    /// Flips a random bit of a random file under the log's directories; says where.
    pub fn rot(&self) -> Option<(String, u64, u32)> {
        let files: Vec<_> = self
            .files()
            .into_iter()
            .filter(|(_, len)| *len > 0)
            .collect();
        let draw = |bound| self.shared().random.below(bound);
        let (name, len) = files.get(usize::try_from(draw(files.len().max(1) as u64)).ok()?)?;
        let place = (
            name.clone(),
            draw(*len),
            u32::try_from(draw(8)).expect("below 8"),
        );
        self.flip(&place.0, place.1, place.2);
        Some(place)
    }

    /// Removes a file behind the program's back, durably.
    pub fn lose(&self, name: &str) {
        let mut shared = self.shared();
        shared.names.remove(name);
        shared.durable_names.remove(name);
        // Nor does a change of the directory that is still under way bring it back.
        shared.pending.retain(|change| !change.makes(name));
    }

    /// Removes every file behind the program's back, durably: those, too, that a crash could
    /// still have brought back.
    pub fn lose_all(&self) {
        let mut shared = self.shared();
        shared.names.clear();
        shared.durable_names.clear();
        shared.pending.clear();
    }
}
