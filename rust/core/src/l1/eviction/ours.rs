//! The default policy: Good-Turing `GreedyDual` with ghosts, a learned horizon, and refusal.
//!
//! The priority of an entry is `level + min(worth x weight(uses), horizon)`:
//! - *worth* = (dollars / bytes)^1.3. The exponent is above one because a miss on a dense entry also
//!   pays again for the room it takes on its return; 1 and 1.5 both lose 0.5 to 1 % at small sizes.
//! - *uses* are those in this stay plus those of earlier stays, from [`Ghosts`], two bytes a key.
//! - *weight* = uses^0.85, and a first use is discounted by a Good-Turing estimate (Good, "The
//!   population frequencies of species", 1953): the share of first uses followed by a second, over
//!   the share of second uses followed by a third. So one-hit wonders cost little where they are
//!   common, and nothing is discounted where they are not.
//! - *horizon*: see [`Idle`]. With it the policy degrades to recency where recency is all there is.
//! - A newcomer whose own priority is below that of the first victim is refused, as if it had been
//!   stored and evicted at once: the level rises to its priority and its use is remembered.
//!
//! Nothing is tuned to a workload: rates are measured as entries come and go. A hit touches the
//! entry's first line and this struct.

use std::sync::LazyLock;

use super::ghosts::Ghosts;
use super::greedy::{Greedy, GreedyNode, mark};
use super::idle::{Idle, is_exempt};
use super::{Candidate, Nodes, Policy, Verdict};
use crate::l1::Touch;

const WORTH_EXPONENT: f32 = 1.3;
const USES_EXPONENT: f32 = 0.85;
/// Uses beyond these weigh the same; counts of earlier stays end at 15.
const MAX_USES: usize = 32;
/// First uses after which the Good-Turing counts are halved: 500 and "never" replay alike.
const GOOD_TURING_WINDOW: u32 = 4096;
/// A first use is never discounted by more than this: evidence, not despair.
const LEAST_DISCOUNT: f32 = 0.05;
/// Weight of a new cost in the running average that stands in for unknown costs.
const COST_STEP: f32 = 1.0 / 64.0;

/// See the module.
#[derive(Debug)]
pub struct Ours {
    queue: Greedy,
    ghosts: Ghosts,
    idle: Idle,
    /// How many keys reached one, two and three uses.
    reached: [u32; 3],
    /// Weight of a first use.
    first: f32,
    average_cost: f32,
    /// Priority of the candidate under consideration.
    asking: f32,
}

/// Weights of two uses and more, the same in all shards.
static WEIGHTS: LazyLock<[f32; MAX_USES + 1]> = LazyLock::new(|| {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    std::array::from_fn(|uses| (uses as f32).powf(USES_EXPONENT))
});

/// What an entry's priority depends on besides the entry.
#[derive(Clone, Copy)]
struct Scale {
    first: f32,
    horizon: f32,
}

impl Scale {
    fn full(self, worth: f32, uses: u32) -> f32 {
        if uses < 2 {
            worth * self.first
        } else {
            worth * WEIGHTS[(uses as usize).min(MAX_USES)]
        }
    }

    fn gain(self, worth: f32, uses: u32, hash: u64) -> f32 {
        let full = self.full(worth, uses);
        if is_exempt(hash) {
            full
        } else {
            full.min(self.horizon)
        }
    }
}

fn uses(touch: Touch) -> u32 {
    touch.prior() + touch.hits()
}

impl Ours {
    #[inline]
    fn reach(&mut self, uses: u32) {
        if let Some(count) = self.reached.get_mut(uses.wrapping_sub(1) as usize) {
            *count += 1;
            if self.reached[0] > GOOD_TURING_WINDOW {
                self.reached.iter_mut().for_each(|count| *count /= 2);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "ratios of counts")]
    fn discount(&mut self) {
        let [first, second, third] = self.reached.map(|count| count as f32);
        let (again, after) = (
            (second + 1.0) / (first + 2.0),
            (third + 1.0) / (second + 2.0),
        );
        self.first = (again / after).clamp(LEAST_DISCOUNT, 1.0);
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn worth(&self, cost: u64, charge: u64) -> f32 {
        let cost = if cost == 0 {
            self.average_cost
        } else {
            cost as f32
        };
        (cost / charge.max(1) as f32).powf(WORTH_EXPONENT)
    }

    fn horizon(&self) -> f32 {
        if self.idle.horizon.is_finite() {
            self.idle.horizon * self.queue.typical()
        } else {
            f32::INFINITY
        }
    }

    fn scale(&self) -> Scale {
        Scale {
            first: self.first,
            horizon: self.horizon(),
        }
    }

    fn refuses(&mut self, candidate: &Candidate, touch: Touch, priority: f32) -> bool {
        let horizon = self.horizon();
        let known = self.ghosts.uses(candidate.hash);
        if candidate.first {
            let worth = self.worth(candidate.cost, candidate.charge);
            let scale = self.scale();
            self.asking = self.queue.level() + scale.full(worth, known + 1).min(horizon);
        } else if !self.idle.patient {
            return false;
        }
        // An exempt victim is not to weigh more than the rule would let it.
        if self.asking >= priority.min(mark(touch) + horizon) {
            return false;
        }
        self.queue.rise(self.asking);
        self.ghosts.take(candidate.hash);
        self.ghosts.put(candidate.hash, known + 1);
        self.reach(known + 1);
        true
    }
}

impl Policy for Ours {
    type Node = GreedyNode;

    fn new(_capacity: u64) -> Self {
        Self {
            queue: Greedy::default(),
            ghosts: Ghosts::default(),
            idle: Idle::default(),
            reached: [0; 3],
            first: 1.0,
            average_cost: 1.0,
            asking: 0.0,
        }
    }

    #[inline]
    fn hit<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32) {
        let touch = slots.touch_mut(slot);
        self.idle.hit(self.queue.idle(*touch));
        self.queue.hit(touch);
        let uses = uses(*touch);
        self.reach(uses);
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn stored<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, _again: bool) {
        let (hash, cost) = (slots.hash(slot), slots.cost(slot));
        if cost > 0 {
            self.average_cost += (cost as f32 - self.average_cost) * COST_STEP;
        }
        self.ghosts.fit(slots.len());
        let prior = self.ghosts.take(hash) + 1;
        self.reach(prior);
        self.discount();
        let worth = self.worth(cost, slots.charge(slot));
        slots.touch_mut(slot).set_prior(prior);
        slots.node_mut(slot).worth = worth;
        let scale = self.scale();
        let gain = scale.gain(worth, prior, hash);
        self.queue.queue(slots, slot, gain);
    }

    fn leaving<S: Nodes<GreedyNode>>(&mut self, slots: &mut S, slot: u32, evicted: bool) {
        let (touch, hash) = (slots.touch(slot), slots.hash(slot));
        let scale = self.scale();
        let cut =
            !is_exempt(hash) && scale.full(slots.node(slot).worth, uses(touch)) > scale.horizon;
        if evicted && !cut {
            self.idle.evicted(self.queue.idle(touch), slots.len());
        }
        self.ghosts.put(hash, uses(touch));
        self.queue.forget(slots, slot, |node, touch, hash| {
            scale.gain(node.worth, uses(touch), hash)
        });
    }

    fn victim<S: Nodes<GreedyNode>>(
        &mut self,
        slots: &mut S,
        candidate: Option<&Candidate>,
    ) -> Option<Verdict> {
        let scale = self.scale();
        let gain =
            |node: &GreedyNode, touch: Touch, hash: u64| scale.gain(node.worth, uses(touch), hash);
        let (slot, priority) = self.queue.least(slots, gain)?;
        if let Some(candidate) = candidate
            && self.refuses(candidate, slots.touch(slot), priority)
        {
            return Some(Verdict::Refuse);
        }
        self.queue.sink(slots, slot, priority);
        Some(Verdict::Evict(slot))
    }

    #[inline]
    fn foresee(&self, hash: u64) {
        self.ghosts.foresee(hash);
    }

    #[inline]
    fn coming<S: Nodes<GreedyNode>>(&self, slots: &S) -> [Option<u32>; 2] {
        self.queue.coming(slots)
    }

    fn bytes(&self) -> u64 {
        self.queue.bytes() + self.ghosts.bytes()
    }
}
