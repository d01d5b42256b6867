//! A reference with knowledge of the future: dollars saved by a feasible offline schedule.
//!
//! Each pair of consecutive requests for a key is an interval: keeping the entry over it saves its
//! cost and occupies its size between the two. Intervals are taken greedily by dollars per
//! byte-request, each if it fits everywhere (Berger, Beckmann, Harchol-Balter, "Practical bounds
//! on optimal caching with variable object sizes", SIGMETRICS 2018, the lower bound PFOO-L with
//! costs for hits). What it saves a real cache could save, so a share of 1 is not a bound that
//! cannot be passed in principle, but nothing online comes near it.

use crate::workload::Trace;

/// Micro-dollars.
#[expect(clippy::cast_precision_loss, reason = "densities are compared only")]
pub(crate) fn saved(trace: &Trace, capacity: u64) -> u64 {
    let mut last = vec![usize::MAX; trace.items.len()];
    let mut intervals = Vec::new();
    for (at, request) in trace.requests.iter().enumerate() {
        let item = &trace.items[request.item as usize];
        let before = std::mem::replace(&mut last[request.item as usize], at);
        if before != usize::MAX && item.size <= capacity {
            let density = item.cost as f64 / (item.size as f64 * (at - before) as f64);
            intervals.push((density, before, at, item.size, item.cost));
        }
    }
    intervals.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut used = Occupancy::new(trace.requests.len());
    let mut total = 0;
    for (_, from, to, size, cost) in intervals {
        if used.most(from, to) + size <= capacity {
            used.add(from, to, size);
            total += cost;
        }
    }
    total
}

/// Segment tree: add over a range, maximum over a range.
struct Occupancy {
    leaves: usize,
    most: Vec<u64>,
    added: Vec<u64>,
}

impl Occupancy {
    fn new(len: usize) -> Self {
        let leaves = len.next_power_of_two();
        Self {
            leaves,
            most: vec![0; leaves * 2],
            added: vec![0; leaves * 2],
        }
    }

    fn most(&self, from: usize, to: usize) -> u64 {
        self.query(1, 0, self.leaves, from, to)
    }

    fn query(&self, node: usize, low: usize, high: usize, from: usize, to: usize) -> u64 {
        if to <= low || high <= from {
            return 0;
        }
        if from <= low && high <= to {
            return self.most[node];
        }
        let middle = low.midpoint(high);
        let left = self.query(node * 2, low, middle, from, to);
        let right = self.query(node * 2 + 1, middle, high, from, to);
        self.added[node] + left.max(right)
    }

    fn add(&mut self, from: usize, to: usize, size: u64) {
        self.update(1, 0, self.leaves, from, to, size);
    }

    fn update(&mut self, node: usize, low: usize, high: usize, from: usize, to: usize, size: u64) {
        if to <= low || high <= from {
            return;
        }
        if from <= low && high <= to {
            self.most[node] += size;
            self.added[node] += size;
            return;
        }
        let middle = low.midpoint(high);
        self.update(node * 2, low, middle, from, to, size);
        self.update(node * 2 + 1, middle, high, from, to, size);
        self.most[node] = self.added[node] + self.most[node * 2].max(self.most[node * 2 + 1]);
    }
}
