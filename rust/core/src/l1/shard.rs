//! One shard: index, slots, expiry, policy and counters behind one lock.

use super::entry::{Cold, Dropped, EntryView, Hot, Inserted, NewEntry, Outcome, Parted, Touch};
use super::eviction::{Candidate, Policy, Verdict, hash};
use super::expiry::Expiry;
use super::stats::ShardStats;
use super::table::{Index, Slots, tag};
use super::{Found, Padded};

pub(super) struct Shard<V, F, P: Policy> {
    index: Index,
    slots: Slots<V, F, P::Node>,
    policy: P,
    stats: ShardStats,
    expiry: Expiry,
    /// Payload and facts of the entries held.
    held: u64,
    capacity: u64,
}

/// Bytes of the smallest index, heaps, history and page directory: room that one entry needs
/// besides its slot.
const MINIMUM: u64 = 512;

/// Why an entry leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Evicted,
    Expired,
    Invalid,
    Removed,
}

impl<V, F, P: Policy> Shard<V, F, P> {
    /// Bytes of an empty shard: lock, headers, counters, the policy's own fields.
    const FIXED: u64 = size_of::<Padded<Self>>() as u64;

    pub(super) fn new(capacity: u64) -> Self {
        Self {
            index: Index::default(),
            slots: Slots::default(),
            policy: P::new(capacity),
            stats: ShardStats::default(),
            expiry: Expiry::default(),
            held: 0,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Everything charged to the budget, as allocated.
    pub(super) fn bytes(&self) -> u64 {
        Self::FIXED
            + self.held
            + self.slots.bytes()
            + self.index.bytes()
            + self.expiry.bytes()
            + self.policy.bytes()
    }

    /// Walks the entries.
    pub(super) fn stats(&self) -> ShardStats {
        ShardStats {
            hit_cost: self.stats.hit_cost.wrapping_add(self.slots.hit_cost()),
            len: self.len() as u64,
            bytes: self.bytes(),
            capacity: self.capacity,
            ..self.stats
        }
    }

    #[inline]
    fn find(&self, key: &[u8; 32]) -> Option<(usize, u32)> {
        self.index
            .find(tag(key), |slot| self.slots.hot(slot).key == *key)
    }

    /// The cell of a slot known to be used; other slots are not looked at.
    fn cell(&self, slot: u32) -> Option<usize> {
        let tag = tag(&self.slots.hot(slot).key);
        Some(self.index.find(tag, |at| at == slot)?.0)
    }

    fn view(&self, slot: u32) -> EntryView<'_, F> {
        let hot = self.slots.hot(slot);
        EntryView {
            fresh_until: hot.fresh_until,
            checked: hot.checked,
            hits: hot.touch.hits(),
            fields: self.slots.cold(slot).fields(),
        }
    }

    /// Finds an entry to serve, counts, and takes out what is gone or invalid.
    #[inline]
    pub(super) fn look(
        &mut self,
        key: &[u8; 32],
        now: i64,
        latest: u64,
        valid: impl FnOnce(&EntryView<'_, F>) -> bool,
    ) -> (Found, Option<Parted<V, F>>) {
        let Some((cell, slot)) = self.find(key) else {
            self.stats.misses += 1;
            return (Found::Nothing, None);
        };
        let hot = self.slots.hot(slot);
        let fresh = now < hot.fresh_until;
        if !fresh && now >= self.slots.cold(slot).stale_until {
            self.stats.misses += 1;
            return (Found::Nothing, self.part(cell, slot, Why::Expired));
        }
        if hot.checked < latest {
            if !valid(&self.view(slot)) {
                self.stats.misses += 1;
                return (Found::Nothing, self.part(cell, slot, Why::Invalid));
            }
            self.slots.hot_mut(slot).checked = latest;
        }
        self.policy.hit(&mut self.slots, slot);
        if fresh {
            self.stats.hits += 1;
            (Found::Fresh(slot), None)
        } else {
            self.stats.stale_hits += 1;
            // The entry's count has it among its hits.
            let cost = u64::from(self.slots.cold(slot).cost);
            self.stats.hit_cost = self.stats.hit_cost.wrapping_sub(cost);
            (Found::Stale(slot), None)
        }
    }

    /// As [`look`](Self::look), changing nothing.
    pub(super) fn glance(
        &self,
        key: &[u8; 32],
        now: i64,
        latest: u64,
        valid: impl FnOnce(&EntryView<'_, F>) -> bool,
    ) -> Option<u32> {
        let (_, slot) = self.find(key)?;
        let hot = self.slots.hot(slot);
        if now >= hot.fresh_until && now >= self.slots.cold(slot).stale_until {
            return None;
        }
        (hot.checked >= latest || valid(&self.view(slot))).then_some(slot)
    }

    #[inline]
    pub(super) fn value(&self, slot: u32) -> Option<&V> {
        self.slots.hot(slot).value.as_ref()
    }

    pub(super) fn read<R>(
        &self,
        slot: u32,
        read: impl FnOnce(&V, &EntryView<'_, F>) -> R,
    ) -> Option<R> {
        Some(read(self.value(slot)?, &self.view(slot)))
    }

    pub(super) fn insert(&mut self, entry: NewEntry<V, F>, now: i64) -> Inserted<V, F> {
        let mut dropped = Dropped::new();
        let mut outcome = Outcome::Stored;
        self.index.foresee(tag(&entry.key));
        self.policy.foresee(hash(&entry.key));
        if let Some((cell, slot)) = self.find(&entry.key) {
            let cold = self.slots.cold(slot);
            let alive = now < cold.stale_until;
            if alive && cold.epoch == entry.epoch && cold.snap > entry.snap {
                self.stats.older += 1;
                dropped.push((entry.value, entry.facts));
                return Inserted {
                    outcome: Outcome::Older,
                    dropped,
                };
            }
            // Out and in again, so that its bytes are free while room is made for its successor.
            dropped.extend(self.take(cell, slot, false));
            outcome = Outcome::Replaced;
        }
        let size = entry
            .payload_bytes
            .saturating_add(u64::from(entry.facts_bytes));
        let mut candidate = Candidate {
            hash: hash(&entry.key),
            charge: size.saturating_add(super::ENTRY_BYTES),
            cost: entry.cost,
            first: true,
        };
        let Ok(payload_bytes) = u32::try_from(entry.payload_bytes) else {
            return self.too_large(entry, dropped);
        };
        let floor = Self::FIXED + self.policy.bytes() + Slots::<V, F, P::Node>::SLOT + MINIMUM;
        if floor.saturating_add(size) > self.capacity {
            return self.too_large(entry, dropped);
        }
        while self.bytes() + size + self.growth() > self.capacity {
            match self.make_room(now, Some(&mut candidate), &mut dropped) {
                Some(true) => {}
                Some(false) => {
                    self.stats.not_admitted += 1;
                    dropped.push((entry.value, entry.facts));
                    return Inserted {
                        outcome: Outcome::NotAdmitted,
                        dropped,
                    };
                }
                None => {
                    // Empty and still no room: structures grown for many small entries.
                    self.reset_structures();
                    if self.bytes() + size + self.growth() > self.capacity {
                        return self.too_large(entry, dropped);
                    }
                }
            }
        }
        let tag = tag(&entry.key);
        let stale_until = entry.stale_until.max(entry.fresh_until).max(i64::MIN + 1);
        let slot = self.slots.take_slot(
            Hot {
                key: entry.key,
                value: Some(entry.value),
                fresh_until: entry.fresh_until,
                checked: entry.checked,
                touch: Touch::default(),
            },
            Cold {
                created: entry.created,
                stale_until,
                epoch: entry.epoch,
                snap: entry.snap,
                facts: entry.facts,
                cost: u32::try_from(entry.cost).unwrap_or(u32::MAX),
                payload_bytes,
                facts_bytes: entry.facts_bytes,
                node: P::Node::default(),
            },
        );
        self.index.add(tag, slot);
        self.held += size;
        self.expiry.add(slot, stale_until, now);
        self.policy
            .stored(&mut self.slots, slot, outcome == Outcome::Replaced);
        match outcome {
            Outcome::Replaced => self.stats.replaced += 1,
            _ => self.stats.inserts += 1,
        }
        // The heaps may have grown by more than was foreseen.
        while self.bytes() > self.capacity {
            if self.make_room(now, None, &mut dropped).is_none() {
                self.reset_structures();
                self.policy = P::new(self.capacity);
                break;
            }
        }
        if !dropped.is_empty() {
            self.foresee();
        }
        Inserted { outcome, dropped }
    }

    /// Asks for what the next evictions are going to need, while other things are done.
    #[inline]
    fn foresee(&self) {
        let [next, after] = self.policy.coming(&self.slots);
        if let Some(next) = next {
            // Its slot was asked for when it was the one after.
            let key = &self.slots.hot(next).key;
            self.index.foresee(tag(key));
            self.policy.foresee(hash(key));
        }
        if let Some(after) = after {
            self.slots.foresee(after);
        }
    }

    fn too_large(&mut self, entry: NewEntry<V, F>, mut dropped: Dropped<V, F>) -> Inserted<V, F> {
        self.stats.too_large += 1;
        dropped.push((entry.value, entry.facts));
        Inserted {
            outcome: Outcome::TooLarge,
            dropped,
        }
    }

    fn growth(&self) -> u64 {
        self.slots.growth() + self.index.growth()
    }

    /// Takes one entry out, expired ones first. `Some(false)`: the candidate is refused; `None`: nothing is held.
    fn make_room(
        &mut self,
        now: i64,
        mut candidate: Option<&mut Candidate>,
        dropped: &mut Dropped<V, F>,
    ) -> Option<bool> {
        if let Some(parted) = self.expire_one(now) {
            dropped.push(parted);
            return Some(true);
        }
        match self.policy.victim(&mut self.slots, candidate.as_deref())? {
            Verdict::Evict(slot) => {
                if let Some(candidate) = &mut candidate {
                    candidate.first = false;
                }
                let cell = self.cell(slot)?;
                dropped.extend(self.part(cell, slot, Why::Evicted));
                Some(true)
            }
            Verdict::Refuse => Some(false),
        }
    }

    /// Evicts what a smaller capacity has no room for.
    pub(super) fn set_capacity(&mut self, capacity: u64, now: i64) -> Dropped<V, F> {
        self.capacity = capacity;
        let mut dropped = Dropped::new();
        while self.bytes() > capacity {
            if self.make_room(now, None, &mut dropped).is_none() {
                // Empty: what is left are structures that grew with the entries.
                self.reset_structures();
                self.policy = P::new(capacity);
                break;
            }
        }
        dropped
    }

    fn expire_one(&mut self, now: i64) -> Option<Parted<V, F>> {
        let slots = &self.slots;
        let slot = self.expiry.due(now, |slot| slots.deadline(slot))?;
        self.part(self.cell(slot)?, slot, Why::Expired)
    }

    pub(super) fn remove_expired(&mut self, now: i64, limit: usize) -> Dropped<V, F> {
        let mut dropped = Dropped::new();
        while dropped.len() < limit {
            match self.expire_one(now) {
                Some(parted) => dropped.push(parted),
                None => break,
            }
        }
        dropped
    }

    pub(super) fn remove(&mut self, key: &[u8; 32]) -> Option<Parted<V, F>> {
        let (cell, slot) = self.find(key)?;
        self.part(cell, slot, Why::Removed)
    }

    pub(super) fn expire(&mut self, key: &[u8; 32], now: i64) -> bool {
        let Some((_, slot)) = self.find(key) else {
            return false;
        };
        let hot = self.slots.hot_mut(slot);
        hot.fresh_until = hot.fresh_until.min(now);
        true
    }

    /// Empties the shard and hands everything back, to be taken apart outside the lock.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Parted<V, F>> + use<V, F, P> {
        self.stats.removed += self.len() as u64;
        let hit_cost = self.slots.hit_cost();
        self.stats.hit_cost = self.stats.hit_cost.wrapping_add(hit_cost);
        self.held = 0;
        self.policy = P::new(self.capacity);
        self.reset_structures().into_values()
    }

    /// Frees the structures; the policy keeps what it learned.
    fn reset_structures(&mut self) -> Slots<V, F, P::Node> {
        self.index = Index::default();
        self.expiry = Expiry::default();
        std::mem::take(&mut self.slots)
    }

    /// Calls `each` for the entries in up to `count` slots from `from`; the next slot, `None` at the end.
    pub(super) fn scan(
        &self,
        from: u32,
        count: u32,
        each: &mut impl FnMut(&[u8; 32], &EntryView<'_, F>),
    ) -> Option<u32> {
        let end = u32::try_from(self.slots.count()).unwrap_or(u32::MAX);
        let stop = from.saturating_add(count).min(end);
        for slot in from..stop {
            if self.value(slot).is_some() {
                each(&self.slots.hot(slot).key, &self.view(slot));
            }
        }
        (stop < end).then_some(stop)
    }

    fn part(&mut self, cell: usize, slot: u32, why: Why) -> Option<Parted<V, F>> {
        match why {
            Why::Evicted => {
                let cold = self.slots.cold(slot);
                self.stats.evictions += 1;
                self.stats.evicted_bytes += cold.outside();
                self.stats.evicted_cost += u64::from(cold.cost);
            }
            Why::Expired => self.stats.expirations += 1,
            Why::Invalid => self.stats.invalidated += 1,
            Why::Removed => self.stats.removed += 1,
        }
        self.take(cell, slot, why == Why::Evicted)
    }

    fn take(&mut self, cell: usize, slot: u32, evicted: bool) -> Option<Parted<V, F>> {
        self.policy.leaving(&mut self.slots, slot, evicted);
        self.held -= self.slots.cold(slot).outside();
        let hit_cost = self.slots.hit_cost_of(slot);
        self.stats.hit_cost = self.stats.hit_cost.wrapping_add(hit_cost);
        self.index.remove(cell);
        let parted = self.slots.give_back(slot);
        self.expiry.tidy(self.index.len(), self.slots.deadlines());
        parted
    }
}
