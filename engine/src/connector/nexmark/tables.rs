//! The tables that the texts and prices of the event stream are drawn from.
//!
//! Texts are views into these tables, which are made once a source: an event costs no byte copies.

use arrow::array::{StringViewArray, StringViewBuilder};
use arrow::buffer::Buffer;

use crate::connector::generator::{hi, lo, mix, nth};

/// The length of a pool of letters.
pub(super) const POOL: u64 = 1 << 20;
/// Channels that are named with a number; four more have real names.
pub(super) const COLD_CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const PRICES: u32 = 4096;

const FIRST_NAMES: [&str; 11] =
    ["Ada", "Boris", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Keiko"];
const LAST_NAMES: [&str; 9] =
    ["Abbott", "Baker", "Castillo", "Duarte", "Eriksen", "Fischer", "Garcia", "Holm", "Ivanov"];
const CITIES: [&str; 10] =
    ["Tucson", "Sacramento", "San Diego", "Nampa", "Salem", "Eugene", "Spokane", "Tacoma", "Olympia", "Laramie"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// What is made once from the seed.
#[derive(Debug)]
pub(super) struct Tables {
    /// Starts the draws of the events.
    pub(super) state: u64,
    /// Letters without blanks.
    pub(super) letters: Buffer,
    /// Letters with a blank in 13.
    pub(super) text: Buffer,
    /// Log-uniform prices in 64ths of a cent, over six decades from one dollar.
    prices: Vec<u64>,
    /// First and last names joined, by `first * 9 + last`.
    pub(super) names: StringViewArray,
    pub(super) cities: StringViewArray,
    pub(super) states: StringViewArray,
    /// Four hot channels, then the cold ones.
    pub(super) channels: StringViewArray,
    /// The URL of each channel.
    pub(super) urls: StringViewArray,
}

impl Tables {
    pub(super) fn new(seed: u64) -> Self {
        let [state, letters, text, urls] = [1, 2, 3, 4].map(|i| mix(seed.wrapping_mul(4).wrapping_add(i)));
        let letter = |j| b'a' + hi(nth(letters, j), 26) as u8;
        let letter_or_blank = |j| {
            let x = nth(text, j);
            if hi(x, 13) == 0 { b' ' } else { b'a' + lo(x, 26) as u8 }
        };
        let names = FIRST_NAMES.iter().flat_map(|first| LAST_NAMES.iter().map(move |last| format!("{first} {last}")));
        let cold = (0..COLD_CHANNELS).map(|i| format!("channel-{i}"));
        Tables {
            state,
            letters: Buffer::from((0..POOL).map(letter).collect::<Vec<u8>>()),
            text: Buffer::from((0..POOL).map(letter_or_blank).collect::<Vec<u8>>()),
            prices: (0..=PRICES).map(price_node).collect(),
            names: views(names),
            cities: views(CITIES),
            states: views(STATES),
            channels: views(HOT_CHANNELS.into_iter().map(str::to_owned).chain(cold)),
            urls: views((0..HOT_CHANNELS.len() as u64 + COLD_CHANNELS).map(|u| url(urls, u))),
        }
    }

    /// A price in cents: log-uniform between 100 and 10^8.
    #[inline]
    pub(super) fn price(&self, x: u64) -> i64 {
        let i = (x >> 52) as usize;
        let fraction = (x >> 20) & 0xFFFF_FFFF;
        let (from, to) = (self.prices[i], self.prices[i + 1]);
        ((from + (((to - from) * fraction) >> 32) + 32) >> 6) as i64
    }

    /// The length of the name `i`, which is ASCII.
    #[inline]
    pub(super) fn length(words: &StringViewArray, i: u64) -> u64 {
        // A view's low 32 bits are its length.
        u64::from(words.views()[i as usize] as u32)
    }
}

/// No value is nearer than 6e-5 to a half, so every correct power gives the same table.
fn price_node(i: u32) -> u64 {
    (6400.0 * 10f64.powf(6.0 * f64::from(i) / f64::from(PRICES))).round() as u64
}

fn views<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> StringViewArray {
    // One block for all words, so that a batch refers to one buffer: the URLs take 0.8 MB.
    let mut builder = StringViewBuilder::new().with_fixed_block_size(1 << 20);
    words.into_iter().for_each(|w| builder.append_value(w));
    builder.finish()
}

fn url(state: u64, u: u64) -> String {
    let q = |i: u64| nth(state, 64 * u + i);
    let mut url = String::from("https://www.nexmark.com");
    for segment in 0..3 {
        url.push('/');
        for c in 0..3 + hi(q(8 * segment), 2) {
            let x = q(8 * segment + 1 + c);
            url.push(if hi(x, 13) == 0 { '_' } else { char::from(b'a' + lo(x, 26) as u8) });
        }
    }
    url.push_str("/item.htm?query=1");
    if u >= 4 && hi(q(40), 10) > 0 {
        let id = (u as u32 - 4).reverse_bits() >> 1;
        url.push_str(&format!("&channel_id={id}"));
    }
    url
}
