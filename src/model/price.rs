//! What an answer costs: token counts times a price, in whole numbers.
//!
//! Nobody's prices are built in: they change, and a wrong number is worse than none. They come from the configuration.

use std::collections::BTreeMap;

use super::usage::Usage;

/// What a million tokens cost, in millionths of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Input that is neither of the next two.
    pub input: u64,
    /// Input read from a cache.
    pub cached: u64,
    /// Input written to a cache.
    pub cache_write: u64,
    /// Output, thoughts included.
    pub output: u64,
}

impl Price {
    /// The cost of one answer in millionths of the currency, rounded to the nearest; what exceeds the type is its
    /// greatest value.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let fresh = usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write);
        let parts = [
            (fresh, self.input),
            (usage.cached, self.cached),
            (usage.cache_write, self.cache_write),
            (usage.output, self.output),
        ];
        let sum = parts
            .iter()
            .fold(0_u128, |sum, (tokens, price)| sum.saturating_add(u128::from(*tokens) * u128::from(*price)));
        u64::try_from(sum.saturating_add(500_000) / 1_000_000).unwrap_or(u64::MAX)
    }
}

/// All prices that are known, in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    /// Its code: three capital letters.
    pub currency: String,
    /// By `provider/model` or `model`; one that ends in `*` is for all names that begin so.
    pub by_name: BTreeMap<String, Price>,
}

impl Default for Prices {
    fn default() -> Self {
        Self { currency: "USD".to_owned(), by_name: BTreeMap::new() }
    }
}

impl Prices {
    /// The price of `model` at `provider` when the client asked for `asked`. A whole name goes before one with `*`: the
    /// place, the model's name there, the name that was asked for; of those with `*` the longest does.
    pub fn find(&self, provider: &str, model: &str, asked: &str) -> Option<&Price> {
        let place = format!("{provider}/{model}");
        let names = [place.as_str(), model, asked];
        names.iter().find_map(|name| self.by_name.get(*name)).or_else(|| {
            let stems = self.by_name.iter().filter_map(|(key, price)| Some((key.strip_suffix('*')?, price)));
            let fitting = stems.filter(|(stem, _)| names.iter().any(|name| name.starts_with(stem)));
            fitting.max_by_key(|(stem, _)| stem.len()).map(|(_, price)| price)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRICE: Price = Price { input: 3_000_000, cached: 300_000, cache_write: 3_750_000, output: 15_000_000 };

    #[test]
    fn each_kind_of_token_has_its_price() {
        let usage =
            Usage { input: 10_000, cached: 8_000, cache_write: 500, output: 2_000, reasoning: 1_500, estimated: false };
        // 1500 · 3 + 8000 · 0.3 + 500 · 3.75 + 2000 · 15; thoughts are among the output.
        assert_eq!(PRICE.cost(&usage), 4_500 + 2_400 + 1_875 + 30_000);
        assert_eq!(PRICE.cost(&Usage::default()), 0);
    }

    #[test]
    fn the_most_specific_price_is_found() {
        let price = |input| Price { input, ..PRICE };
        let keys = ["a/x", "x", "work", "a/*", "a/x-*", "*"];
        let by_name = keys.iter().zip(1..).map(|(key, input)| ((*key).to_owned(), price(input))).collect();
        let prices = Prices { by_name, ..Prices::default() };
        let found = |provider: &str, model: &str, asked: &str| {
            let found = prices.find(provider, model, asked).unwrap();
            keys[usize::try_from(found.input).unwrap() - 1]
        };
        assert_eq!(found("a", "x", "work"), "a/x");
        assert_eq!(found("b", "x", "work"), "x");
        assert_eq!(found("a", "y", "work"), "work");
        assert_eq!(found("a", "y", "a/y"), "a/*");
        assert_eq!(found("a", "x-large", "a/x-large"), "a/x-*");
        assert_eq!(found("b", "y", "b/y"), "*");
        assert_eq!(Prices::default().find("a", "x", "work"), None);
    }

    fn usage() -> impl Strategy<Value = Usage> {
        let count = prop_oneof![0..10_000_u64, any::<u64>()];
        [count.clone(), count.clone(), count.clone(), count].prop_map(|[input, cached, cache_write, output]| Usage {
            input,
            cached,
            cache_write,
            output,
            ..Usage::default()
        })
    }

    fn any_price() -> impl Strategy<Value = Price> {
        let amount = prop_oneof![0..100_000_000_u64, any::<u64>()];
        [amount.clone(), amount.clone(), amount.clone(), amount]
            .prop_map(|[input, cached, cache_write, output]| Price { input, cached, cache_write, output })
    }

    proptest! {
        #[test]
        fn a_million_tokens_cost_their_price(price in any_price(), millions in 0_u64..1000) {
            let tokens = millions * 1_000_000;
            let whole = |price: u64| price.saturating_mul(millions);
            prop_assert_eq!(price.cost(&Usage { input: tokens, ..Usage::default() }), whole(price.input));
            let cached = Usage { input: tokens, cached: tokens, ..Usage::default() };
            prop_assert_eq!(price.cost(&cached), whole(price.cached));
            let written = Usage { input: tokens, cache_write: tokens, ..Usage::default() };
            prop_assert_eq!(price.cost(&written), whole(price.cache_write));
            prop_assert_eq!(price.cost(&Usage { output: tokens, ..Usage::default() }), whole(price.output));
        }

        #[test]
        fn no_count_overflows_and_more_never_costs_less(price in any_price(), usage in usage(), more in any::<u64>()) {
            let cost = price.cost(&usage);
            let longer = Usage { output: usage.output.saturating_add(more), ..usage };
            prop_assert!(price.cost(&longer) >= cost);
            let asked_more = Usage { input: usage.input.saturating_add(more), ..usage };
            prop_assert!(price.cost(&asked_more) >= cost);
        }

        #[test]
        fn the_sum_of_parts_is_off_by_roundings_only(
            price in any_price(), parts in prop::collection::vec(0..1_000_000_u64, 1..20),
        ) {
            let price = Price { output: price.output % 1_000_000_000, ..price };
            let of = |output| price.cost(&Usage { output, ..Usage::default() });
            let apart: u64 = parts.iter().map(|part| of(*part)).sum();
            prop_assert!(apart.abs_diff(of(parts.iter().sum())) <= parts.len() as u64);
        }

        #[test]
        fn it_is_never_more_than_all_at_the_highest_price(price in any_price(), usage in usage()) {
            let highest = price.input.max(price.cached).max(price.cache_write).max(price.output);
            // Cached and written tokens are among the input, unless a provider counts them beside it.
            let tokens = u128::from(usage.input.max(usage.cached.saturating_add(usage.cache_write)))
                + u128::from(usage.output);
            let bound = tokens.saturating_mul(u128::from(highest)) / 1_000_000 + 1;
            prop_assert!(u128::from(price.cost(&usage)) <= bound);
        }
    }
}
