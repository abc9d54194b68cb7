//! The ledger at one LSN while transfers go on: its blocks of a snapshot.
//!
//! Everything but accounts is append-only, so the snapshot has the first so many of each. Of those
//! it copies what no full segment has; full segments never change, and are referred to
//! (`list.rs`). An account that changes ahead of the walk is saved first, once: its slot then
//! carries the number of the snapshot.
//!
//! A block is the header of every state block ([`super::super::BLOCK_HEADER`]), the position of
//! its first item (u64; accounts name themselves), and items of one size ([`super::ITEMS`]).

use super::super::snapshot::{BLOCK_BYTES, Block, HEADER, Range, VERSION};
use super::Ledger;
use super::accounts::{SAVED_BYTES, Slot};
use super::list::{Item, List};

/// What a ledger's block holds: the number that its header carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in super::super) enum Sorts {
    Head = 2,
    Accounts = 3,
    Transfers = 4,
    Burned = 5,
    Expiries = 6,
    Rows = 7,
}

impl Sorts {
    pub const ALL: [Sorts; 6] = [
        Sorts::Head,
        Sorts::Accounts,
        Sorts::Transfers,
        Sorts::Burned,
        Sorts::Expiries,
        Sorts::Rows,
    ];

    pub fn from_number(number: u8) -> Option<Sorts> {
        Sorts::ALL.into_iter().find(|sort| *sort as u8 == number)
    }
}

/// How much of everything a snapshot has: its head block.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ends {
    pub last_event: u64,
    pub accounts: u64,
    pub transfers: u64,
    pub burned: u64,
    pub expiries: u64,
    pub rows: u64,
}

impl Ends {
    pub const BYTES: usize = 48;

    pub fn encode(&self) -> [u8; Ends::BYTES] {
        let mut out = [0; Ends::BYTES];
        let all = [
            self.last_event,
            self.accounts,
            self.transfers,
            self.burned,
            self.expiries,
            self.rows,
        ];
        for (place, number) in out.as_chunks_mut::<8>().0.iter_mut().zip(all) {
            *place = number.to_le_bytes();
        }
        out
    }

    pub fn decode(bytes: &[u8; Ends::BYTES]) -> Ends {
        let (numbers, _) = bytes.as_chunks::<8>();
        let at = |i: usize| u64::from_le_bytes(numbers[i]);
        Ends {
            last_event: at(0),
            accounts: at(1),
            transfers: at(2),
            burned: at(3),
            expiries: at(4),
            rows: at(5),
        }
    }
}

/// A snapshot of the ledger in progress.
#[derive(Debug)]
pub(super) struct Walk {
    /// Which snapshot of this ledger it is.
    number: u32,
    ends: Ends,
    /// Everything below is copied.
    next: Ends,
    /// So many accounts are a range, as a power of two.
    shift: u32,
    filling: Option<Filling>,
    /// Accounts that changed ahead of the walk.
    saved: Filling,
    closed: Vec<Block>,
}

impl Walk {
    /// Called before an account changes.
    pub fn save(&mut self, number: u32, slot: &mut Slot) {
        let at = u64::from(number);
        if at < self.ends.accounts && at >= self.next.accounts && slot.saved != self.number {
            slot.saved = self.number;
            self.saved.push(0, &slot.encode(at));
            self.saved.close_full(&mut self.closed);
        }
    }

    /// Appends one account that is being copied.
    fn copy_account(&mut self, number: u32, account: &[u8]) {
        let range = Range::around(Sorts::Accounts as u8, number, self.shift);
        self.copy(Sorts::Accounts, range, 0, account);
    }

    /// Appends one item of what is being copied.
    fn copy(&mut self, sort: Sorts, range: Range, position: u64, item: &[u8]) {
        if self
            .filling
            .as_ref()
            .is_none_or(|filling| (filling.sort, filling.range) != (sort, range))
        {
            self.close();
            self.filling = Some(Filling::new(sort, range));
        }
        let filling = self.filling.as_mut().expect("made above");
        filling.push(position, item);
        filling.close_full(&mut self.closed);
    }

    fn close(&mut self) {
        if let Some(mut filling) = self.filling.take() {
            filling.close(&mut self.closed);
        }
    }
}

/// A block being filled.
#[derive(Debug)]
struct Filling {
    sort: Sorts,
    range: Range,
    bytes: Vec<u8>,
    items: u32,
}

impl Filling {
    fn new(sort: Sorts, range: Range) -> Filling {
        Filling {
            sort,
            range,
            bytes: Vec::new(),
            items: 0,
        }
    }

    /// `position` is that of the item in its list; 0 where items name themselves.
    fn push(&mut self, position: u64, item: &[u8]) {
        if self.items == 0 {
            self.bytes.reserve(BLOCK_BYTES + BLOCK_BYTES / 8);
            let header = [VERSION, self.sort as u8, 0, 0, 0, 0, 0, 0];
            self.bytes.extend_from_slice(&header);
            self.bytes.extend_from_slice(&position.to_le_bytes());
        }
        self.bytes.extend_from_slice(item);
        self.items += 1;
    }

    fn close_full(&mut self, closed: &mut Vec<Block>) {
        if self.bytes.len() >= BLOCK_BYTES {
            self.close(closed);
        }
    }

    fn close(&mut self, closed: &mut Vec<Block>) {
        if self.items == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes[4..HEADER].copy_from_slice(&self.items.to_le_bytes());
        self.items = 0;
        closed.push(Block {
            range: self.range,
            bytes,
        });
    }
}

impl Ledger {
    /// Starts a snapshot of the ledger as it is now; nothing is copied yet.
    pub(in super::super) fn begin_walk(&mut self, segment_shift: u32) {
        self.walks = match self.walks.checked_add(1) {
            Some(number) => number,
            None => {
                // Old numbers come again: none may look saved.
                self.accounts.slots_mut().for_each(|slot| slot.saved = 0);
                1
            }
        };
        self.walk = Some(Walk {
            number: self.walks,
            ends: Ends {
                last_event: self.last_event,
                accounts: self.accounts.len(),
                transfers: self.transfers.len(),
                burned: self.transfers.burned().len(),
                expiries: self.holds.expiries().len(),
                rows: self.history.rows().len(),
            },
            next: Ends {
                transfers: self.transfers.log().closed_len(),
                burned: self.transfers.burned().closed_len(),
                expiries: self.holds.expiries().closed_len(),
                rows: self.history.rows().closed_len(),
                ..Ends::default()
            },
            shift: segment_shift,
            filling: None,
            saved: Filling::new(Sorts::Accounts, Range::NONE),
            closed: Vec::new(),
        });
    }

    /// Copies about `budget_bytes` more; answers how many, and whether all is copied.
    pub(in super::super) fn walk_step(&mut self, budget_bytes: usize) -> (usize, bool) {
        let mut walk = self.walk.take().expect("a snapshot was begun");
        let mut copied = 0;
        while copied < budget_bytes {
            match self.copy_next(&mut walk) {
                0 => break,
                bytes => copied += bytes,
            }
        }
        let is_done = walk.next == walk.ends;
        self.walk = Some(walk);
        (copied, is_done)
    }

    /// Hands out the blocks that are full, or all of them at the end.
    pub(in super::super) fn walk_blocks(&mut self, at_end: bool, emit: &mut Vec<Block>) {
        let walk = self.walk.as_mut().expect("a snapshot was begun");
        if at_end {
            walk.close();
            walk.saved.close(&mut walk.closed);
        }
        emit.append(&mut walk.closed);
    }

    /// Ends a snapshot, finished or not.
    pub(in super::super) fn end_walk(&mut self) {
        self.walk = None;
    }

    /// Copies the next item of the first list that is not finished; answers its bytes, 0 at the
    /// end.
    fn copy_next(&self, walk: &mut Walk) -> usize {
        let (next, ends) = (walk.next, walk.ends);
        if next.accounts < ends.accounts {
            walk.next.accounts += 1;
            let number = u32::try_from(next.accounts).expect("an account's number");
            let slot = self.accounts.slot(number);
            if slot.saved != walk.number {
                walk.copy_account(number, &slot.encode(next.accounts));
            }
            return SAVED_BYTES;
        }
        if next.transfers < ends.transfers {
            walk.next.transfers += 1;
            return copy_from(self.transfers.log(), walk, next.transfers);
        }
        if next.burned < ends.burned {
            walk.next.burned += 1;
            return copy_from(self.transfers.burned(), walk, next.burned);
        }
        if next.expiries < ends.expiries {
            walk.next.expiries += 1;
            return copy_from(self.holds.expiries(), walk, next.expiries);
        }
        if next.rows < ends.rows {
            walk.next.rows += 1;
            return copy_from(self.history.rows(), walk, next.rows);
        }
        if next.last_event < ends.last_event {
            walk.next.last_event = ends.last_event;
            walk.copy(Sorts::Head, Range::NONE, 0, &ends.encode());
            return Ends::BYTES;
        }
        0
    }
}

fn copy_from<T: Item>(list: &List<T>, walk: &mut Walk, position: u64) -> usize {
    walk.copy(T::SORT, Range::NONE, position, list.bytes_at(position));
    T::BYTES
}
