//! One file as the machine that fails has it: what a program sees, what is durable, and what lies
//! between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

pub(super) const SECTOR: usize = 512;

type Sector = Box<[u8; SECTOR]>;

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) len: u64,
    pub(super) sectors: BTreeMap<u64, Sector>,
    pub(super) durable_len: u64,
    pub(super) durable: BTreeMap<u64, Sector>,
    /// What dirty sectors have held since the last sync, the oldest first.
    versions: BTreeMap<u64, Vec<Sector>>,
    lens: Vec<u64>,
    pub(super) allocated: u64,
    /// Sectors that cannot be read.
    pub(super) unreadable: BTreeSet<u64>,
}

impl Inode {
    pub(super) fn sector(&mut self, index: u64) -> &mut Sector {
        self.sectors.entry(index).or_insert_with(|| Box::new([0; SECTOR]))
    }

    fn note(&mut self, index: u64) {
        let now = self.sectors.get(&index).cloned().unwrap_or_else(|| Box::new([0; SECTOR]));
        self.versions.entry(index).or_default().push(now);
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (index, within) = (at / SECTOR as u64, (at % SECTOR as u64) as usize);
            let count = (SECTOR - within).min(bytes.len() - done);
            self.sector(index)[within..within + count].copy_from_slice(&bytes[done..done + count]);
            self.note(index);
            done += count;
        }
        self.set_len(self.len.max(offset + bytes.len() as u64));
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let border = len / SECTOR as u64;
            let within = (len % SECTOR as u64) as usize;
            if within > 0 && self.sectors.contains_key(&border) {
                self.sector(border)[within..].fill(0);
                self.note(border);
            }
            let from = if within > 0 { border + 1 } else { border };
            for index in self.sectors.split_off(&from).into_keys() {
                self.note(index);
            }
        }
        if len != self.len {
            self.len = len;
            self.lens.push(len);
        }
    }

    pub(super) fn sync(&mut self) {
        for index in std::mem::take(&mut self.versions).into_keys() {
            match self.sectors.get(&index) {
                Some(sector) => self.durable.insert(index, sector.clone()),
                None => self.durable.remove(&index),
            };
        }
        self.durable_len = self.len;
        self.lens.clear();
    }

    /// The kernel could not write and calls it clean: nothing became durable, nothing is dirty.
    pub(super) fn forget(&mut self) {
        self.versions.clear();
    }

    pub(super) fn crash(&mut self, random: &mut Random, mode: u64) {
        for (index, mut versions) in std::mem::take(&mut self.versions) {
            let kept = match mode {
                0 => 0,
                1 => versions.len(),
                _ => random.below(versions.len() as u64 + 1) as usize,
            };
            if kept > 0 {
                self.durable.insert(index, versions.swap_remove(kept - 1));
            }
        }
        let lens = std::mem::take(&mut self.lens);
        let kept = match mode {
            0 => 0,
            1 => lens.len(),
            _ => random.below(lens.len() as u64 + 1) as usize,
        };
        if kept > 0 {
            self.durable_len = lens[kept - 1];
        }
        self.len = self.durable_len;
        self.sectors = self.durable.clone();
        self.allocated = self.allocated.min(self.len.next_multiple_of(SECTOR as u64));
        // What lies behind the length is not there.
        let len = self.len;
        self.len = u64::MAX;
        self.set_len(len);
        self.sync();
    }
}

/// A generator of numbers that look random: SplitMix64.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

pub(super) fn read(inode: &Inode, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let count = inode.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
    let mut done = 0;
    while done < count {
        let at = offset + done as u64;
        let (index, within) = (at / SECTOR as u64, (at % SECTOR as u64) as usize);
        if inode.unreadable.contains(&index) {
            return Err(io::Error::other("a sector cannot be read"));
        }
        let part = (SECTOR - within).min(count - done);
        match inode.sectors.get(&index) {
            Some(sector) => {
                buffer[done..done + part].copy_from_slice(&sector[within..within + part]);
            }
            None => buffer[done..done + part].fill(0),
        }
        done += part;
    }
    Ok(count)
}
