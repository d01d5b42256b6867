//! The verifier: boosted regression trees (Friedman 2001) over the features of a pair.
//!
//! What belongs here: reading a fitted model and adding up its leaves. What does not: fitting it
//! (`benches/semantic/fit`).

use std::sync::LazyLock;

use super::FEATURES;

/// Why a model cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreesError {
    /// It does not begin as a model of this version does.
    #[error("this is no model of version 1")]
    Header,
    /// It was fitted to other features.
    #[error("the model was fitted to other features than there are")]
    Features,
    /// It ends too early, or goes on after its end.
    #[error("the model's length is not what its header says")]
    Length,
    /// A node leads nowhere, or in a circle.
    #[error("node {0} of the model does not lead to nodes behind it")]
    Node(usize),
    /// A number is none.
    #[error("the model has a number that is not finite")]
    Number,
}

/// A node: `feature <= threshold` goes left.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// `LEAF` for a leaf.
    feature: u16,
    left: u16,
    right: u16,
    /// Of a leaf: what it adds.
    value: f32,
}

const LEAF: u16 = u16::MAX;
const MAGIC: &[u8; 4] = b"LCFV";
const NODE_BYTES: usize = 10;

/// A fitted model: a line over the cosine, which trees alone would cut into steps, and trees that correct it. Format,
/// little-endian: `LCFV`, version u16 = 1, number of features u16, of trees u32, base f32, slope f32; then for each
/// tree its number of nodes u16 and the nodes, each feature u16 (65535 in a leaf), left u16, right u16, value f32.
/// Children stand behind their parents.
#[derive(Clone, Debug)]
pub struct Trees {
    base: f32,
    slope: f32,
    trees: Vec<Vec<Node>>,
}

static SHIPPED: LazyLock<Trees> = LazyLock::new(|| {
    Trees::read(include_bytes!("verifier.model"))
        .unwrap_or_else(|error| unreachable!("the shipped model: {error}"))
});

impl Trees {
    /// The model that comes with the package.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// Reads a model; nothing in it makes a later `score` fail or run long.
    ///
    /// # Errors
    ///
    /// It is no model, or one of other features.
    pub fn read(bytes: &[u8]) -> Result<Self, TreesError> {
        let mut rest = bytes;
        if take::<4>(&mut rest)? != *MAGIC || u16::from_le_bytes(take(&mut rest)?) != 1 {
            return Err(TreesError::Header);
        }
        if usize::from(u16::from_le_bytes(take(&mut rest)?)) != FEATURES.len() {
            return Err(TreesError::Features);
        }
        let count = u32::from_le_bytes(take(&mut rest)?);
        let base = finite(f32::from_le_bytes(take(&mut rest)?))?;
        let slope = finite(f32::from_le_bytes(take(&mut rest)?))?;
        let mut trees = Vec::new();
        for _ in 0..count {
            let nodes = usize::from(u16::from_le_bytes(take(&mut rest)?));
            if nodes == 0 || rest.len() < nodes * NODE_BYTES {
                return Err(TreesError::Length);
            }
            let tree = (0..nodes)
                .map(|at| node(&mut rest, at, nodes))
                .collect::<Result<Vec<_>, _>>()?;
            trees.push(tree);
        }
        if rest.is_empty() {
            Ok(Self { base, slope, trees })
        } else {
            Err(TreesError::Length)
        }
    }

    /// The probability that a pair of these features asks the same.
    pub fn score(&self, features: &[f32; FEATURES.len()]) -> f32 {
        let mut sum = self.base + self.slope * features[0];
        for tree in &self.trees {
            let mut node = tree[0];
            while node.feature != LEAF {
                let left = features[usize::from(node.feature)] <= node.value;
                node = tree[usize::from(if left { node.left } else { node.right })];
            }
            sum += node.value;
        }
        1.0 / (1.0 + (-sum).exp())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TreesError> {
    let (bytes, behind) = rest.split_first_chunk().ok_or(TreesError::Length)?;
    *rest = behind;
    Ok(*bytes)
}

fn finite(value: f32) -> Result<f32, TreesError> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(TreesError::Number)
    }
}

fn node(rest: &mut &[u8], at: usize, nodes: usize) -> Result<Node, TreesError> {
    let node = Node {
        feature: u16::from_le_bytes(take(rest)?),
        left: u16::from_le_bytes(take(rest)?),
        right: u16::from_le_bytes(take(rest)?),
        value: finite(f32::from_le_bytes(take(rest)?))?,
    };
    let child = |child: u16| usize::from(child) > at && usize::from(child) < nodes;
    if node.feature != LEAF
        && (usize::from(node.feature) >= FEATURES.len() || !child(node.left) || !child(node.right))
    {
        return Err(TreesError::Node(at));
    }
    Ok(node)
}
