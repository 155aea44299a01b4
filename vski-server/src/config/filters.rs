//! How much one filter, order or expansion may ask for.

use clap::Args;
use clap::builder::RangedU64ValueParser;

/// Limits on what a request sends as `filter`, `sort` and `expand`. Stored rules have [`FilterLimits::RULES`], whatever the
/// settings say: a rule that was stored once can be used on every node.
#[derive(Args, Clone, Copy, Debug)]
pub struct FilterLimits {
    /// Bytes of a filter
    #[arg(long = "max-filter-bytes", env = "MAX_FILTER_BYTES", default_value_t = Self::RULES.bytes, value_parser = up_to(64 << 10))]
    pub bytes: usize,
    /// Parentheses of a filter inside each other
    #[arg(long = "max-filter-depth", env = "MAX_FILTER_DEPTH", default_value_t = Self::RULES.depth, value_parser = up_to(MOST_DEPTH))]
    pub depth: usize,
    /// Comparisons of a filter
    #[arg(long = "max-filter-comparisons", env = "MAX_FILTER_COMPARISONS", default_value_t = Self::RULES.comparisons, value_parser = up_to(MOST_COMPARISONS))]
    pub comparisons: usize,
    /// Relations that all paths of a filter or of an order follow together
    #[arg(long = "max-filter-relations", env = "MAX_FILTER_RELATIONS", default_value_t = Self::RULES.relations, value_parser = up_to(100))]
    pub relations: usize,
    /// Relations that one path of a filter, an order or expand follows
    #[arg(long = "max-relation-depth", env = "MAX_RELATION_DEPTH", default_value_t = Self::RULES.relation_depth, value_parser = up_to(10))]
    pub relation_depth: usize,
    /// Keys of an order
    #[arg(long = "max-sort-keys", env = "MAX_SORT_KEYS", default_value_t = Self::RULES.sort_keys, value_parser = up_to(32))]
    pub sort_keys: usize,
}

/// Largest depth: both the parser here and SQLite's code generator call themselves that often, on a thread's 2 MiB of stack.
pub const MOST_DEPTH: usize = 64;

/// Most comparisons.
pub const MOST_COMPARISONS: usize = 1000;

impl FilterLimits {
    /// Those of stored rules, and the settings' defaults: 200 comparisons and 6 relations are PocketBase's.
    pub const RULES: Self =
        Self { bytes: 16 << 10, depth: 32, comparisons: 200, relations: 32, relation_depth: 6, sort_keys: 8 };
}

impl Default for FilterLimits {
    fn default() -> Self {
        Self::RULES
    }
}

/// From 1: nothing can be forbidden in this way.
fn up_to(most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most as u64)
}
