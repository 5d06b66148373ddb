//! The columns of persons, auctions and bids: each a function of the numbers of the events.
//!
//! Event `n` draws 16 random numbers `r(0)..r(15)` from the seed and `n` alone, so any column of any
//! events can be made without the others.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, StringViewArray, TimestampMicrosecondArray, UInt32Array, make_view,
};
use arrow::buffer::Buffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, TimeUnit};

use super::run::{Kind, ROUND};
use super::tables::{COLD_CHANNELS, POOL, Tables};
use crate::connector::generator::{hi, nth, texts};
use crate::error::Result;

/// The first person and the first auction.
const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Auctions that are open at a time.
const IN_FLIGHT: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1000;
/// How far ahead of the newest an id may be that an event names.
const LEAD: u64 = 10;
/// The hot auction, seller and bidder change after this many.
const HOT_BATCH: u64 = 100;
/// Events until `IN_FLIGHT` more auctions have been made.
const AUCTION_SPAN: u64 = IN_FLIGHT * ROUND / 3;

/// What makes events: the tables of a seed and a clock.
#[derive(Debug)]
pub(super) struct Events {
    tables: Tables,
    /// Events a second of event time.
    rate: u64,
    /// The time of event 0 in milliseconds since 1970.
    base_time: i64,
}

/// A column that can be made.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) data_type: DataType,
    pub(super) make: fn(&Events, &[u64]) -> Result<ArrayRef>,
}

impl Column {
    const fn int(name: &'static str, make: fn(&Events, &[u64]) -> Result<ArrayRef>) -> Self {
        Column { name, data_type: DataType::Int64, make }
    }

    const fn text(name: &'static str, make: fn(&Events, &[u64]) -> Result<ArrayRef>) -> Self {
        Column { name, data_type: DataType::Utf8View, make }
    }

    const fn time(name: &'static str, make: fn(&Events, &[u64]) -> Result<ArrayRef>) -> Self {
        Column { name, data_type: DataType::Timestamp(TimeUnit::Microsecond, None), make }
    }
}

/// Which kind an event of the combined stream is: 0 person, 1 auction, 2 bid.
pub(super) static EVENT_TYPE: Column =
    Column { name: "event_type", data_type: DataType::Int32, make: Events::event_type };

/// When an event happens.
pub(super) static DATE_TIME: Column = Column::time("date_time", Events::date_time);

static PERSON: [Column; 8] = [
    Column::int("id", Events::person_id),
    Column::text("name", Events::person_name),
    Column::text("email_address", Events::person_email),
    Column::text("credit_card", Events::person_card),
    Column::text("city", Events::person_city),
    Column::text("state", Events::person_state),
    Column::time("date_time", Events::date_time),
    Column::text("extra", Events::person_extra),
];

static AUCTION: [Column; 10] = [
    Column::int("id", Events::auction_id),
    Column::text("item_name", Events::auction_item),
    Column::text("description", Events::auction_description),
    Column::int("initial_bid", Events::auction_initial_bid),
    Column::int("reserve", Events::auction_reserve),
    Column::time("date_time", Events::date_time),
    Column::time("expires", Events::auction_expires),
    Column::int("seller", Events::auction_seller),
    Column::int("category", Events::auction_category),
    Column::text("extra", Events::auction_extra),
];

static BID: [Column; 7] = [
    Column::int("auction", Events::bid_auction),
    Column::int("bidder", Events::bid_bidder),
    Column::int("price", Events::bid_price),
    Column::text("channel", Events::bid_channel),
    Column::text("url", Events::bid_url),
    Column::time("date_time", Events::date_time),
    Column::text("extra", Events::bid_extra),
];

impl Kind {
    /// The columns of its events.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Kind::Person => &PERSON,
            Kind::Auction => &AUCTION,
            Kind::Bid => &BID,
        }
    }
}

impl Events {
    pub(super) fn new(seed: u64, rate: u64, base_time: i64) -> Self {
        Events { tables: Tables::new(seed), rate, base_time }
    }

    /// Random number `k` of event `n`.
    #[inline]
    fn r(&self, n: u64, k: u64) -> u64 {
        nth(self.tables.state, n.wrapping_mul(16).wrapping_add(k))
    }

    /// Milliseconds since 1970 of event `n`.
    #[inline]
    fn millis(&self, n: u64) -> i64 {
        self.base_time.wrapping_add((n.wrapping_mul(1000) / self.rate) as i64)
    }

    /// One of the people active at event `n`, drawn from `x`; without the first id.
    #[inline]
    fn cold_person(n: u64, x: u64) -> u64 {
        let people = n / ROUND + 1;
        let active = people.min(ACTIVE_PEOPLE);
        people - active + hi(x, active + LEAD)
    }

    // All kinds

    fn event_type(&self, n: &[u64]) -> Result<ArrayRef> {
        let of = |n: &u64| Kind::of(*n) as i32;
        Ok(Arc::new(n.iter().map(of).collect::<Vec<i32>>().into_iter().collect::<Int32Array>()))
    }

    fn date_time(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(times(n, |n| self.millis(n)))
    }

    // Persons

    fn person_id(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| (FIRST_ID + n / ROUND) as i64))
    }

    fn name_index(&self, n: u64) -> u64 {
        hi(self.r(n, 0), 11) * 9 + hi(self.r(n, 1), 9)
    }

    fn person_name(&self, n: &[u64]) -> Result<ArrayRef> {
        words(&self.tables.names, n, |n| self.name_index(n))
    }

    fn user_length(&self, n: u64) -> u64 {
        3 + hi(self.r(n, 2), 4)
    }

    fn host_length(&self, n: u64) -> u64 {
        3 + hi(self.r(n, 4), 2)
    }

    fn person_email(&self, n: &[u64]) -> Result<ArrayRef> {
        let pool = self.tables.letters.as_slice();
        texts(n.iter().copied(), 16, None, |n, bytes| {
            bytes.extend_from_slice(slice(pool, self.r(n, 3), self.user_length(n)));
            bytes.push(b'@');
            bytes.extend_from_slice(slice(pool, self.r(n, 5), self.host_length(n)));
            bytes.extend_from_slice(b".com");
        })
    }

    fn person_card(&self, n: &[u64]) -> Result<ArrayRef> {
        texts(n.iter().copied(), 19, None, |n, bytes| {
            let halves = [6, 7].map(|k| hi(self.r(n, k), 100_000_000));
            let groups = halves.into_iter().flat_map(|half| [half / 10_000, half % 10_000]);
            for (i, group) in groups.enumerate() {
                if i > 0 {
                    bytes.push(b' ');
                }
                bytes.extend([1000, 100, 10, 1].map(|unit| b'0' + (group / unit % 10) as u8));
            }
        })
    }

    fn person_city(&self, n: &[u64]) -> Result<ArrayRef> {
        words(&self.tables.cities, n, |n| hi(self.r(n, 8), 10))
    }

    fn person_state(&self, n: &[u64]) -> Result<ArrayRef> {
        words(&self.tables.states, n, |n| hi(self.r(n, 9), 6))
    }

    fn person_extra(&self, n: &[u64]) -> Result<ArrayRef> {
        self.letters(n, |n| {
            let name = Tables::length(&self.tables.names, self.name_index(n));
            let email = self.user_length(n) + self.host_length(n) + 5;
            let city = Tables::length(&self.tables.cities, hi(self.r(n, 8), 10));
            let size = 8 + name + email + 19 + city + 2;
            (self.r(n, 11), extra_length(self.r(n, 10), size, 200))
        })
    }

    // Auctions

    fn auction_id(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| (FIRST_ID + n / ROUND * 3 + n % ROUND - 1) as i64))
    }

    fn auction_item(&self, n: &[u64]) -> Result<ArrayRef> {
        self.texts(n, |n| (self.r(n, 6), text_length(self.r(n, 5), 20)))
    }

    fn auction_description(&self, n: &[u64]) -> Result<ArrayRef> {
        self.texts(n, |n| (self.r(n, 8), text_length(self.r(n, 7), 100)))
    }

    fn auction_initial_bid(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| self.tables.price(self.r(n, 3))))
    }

    fn auction_reserve(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| self.tables.price(self.r(n, 3)) + self.tables.price(self.r(n, 9))))
    }

    fn auction_expires(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(times(n, |n| {
            let now = self.millis(n);
            let span = self.millis(n.wrapping_add(AUCTION_SPAN)).wrapping_sub(now) as u64;
            now + 1 + hi(self.r(n, 4), (2 * span).max(1)) as i64
        }))
    }

    fn auction_seller(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| {
            let hot = n / ROUND / HOT_BATCH * HOT_BATCH;
            let cold = Self::cold_person(n, self.r(n, 1));
            (FIRST_ID + if hi(self.r(n, 0), 4) > 0 { hot } else { cold }) as i64
        }))
    }

    fn auction_category(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| (FIRST_CATEGORY + hi(self.r(n, 2), CATEGORIES)) as i64))
    }

    fn auction_extra(&self, n: &[u64]) -> Result<ArrayRef> {
        self.letters(n, |n| {
            let size = 48 + text_length(self.r(n, 5), 20) + text_length(self.r(n, 7), 100);
            (self.r(n, 11), extra_length(self.r(n, 10), size, 500))
        })
    }

    // Bids

    fn bid_auction(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| {
            let last = n / ROUND * 3 + 2;
            let low = last.saturating_sub(IN_FLIGHT);
            let hot = last / HOT_BATCH * HOT_BATCH;
            let cold = low + hi(self.r(n, 1), last - low + 1 + LEAD);
            (FIRST_ID + if hi(self.r(n, 0), 2) > 0 { hot } else { cold }) as i64
        }))
    }

    fn bid_bidder(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| {
            let hot = n / ROUND / HOT_BATCH * HOT_BATCH + 1;
            let cold = Self::cold_person(n, self.r(n, 3));
            (FIRST_ID + if hi(self.r(n, 2), 4) > 0 { hot } else { cold }) as i64
        }))
    }

    fn bid_price(&self, n: &[u64]) -> Result<ArrayRef> {
        Ok(ints(n, |n| self.tables.price(self.r(n, 4))))
    }

    #[inline]
    fn channel_index(&self, n: u64) -> u64 {
        let x = self.r(n, 6);
        if hi(self.r(n, 5), 2) > 0 { hi(x, 4) } else { 4 + hi(x, COLD_CHANNELS) }
    }

    fn bid_channel(&self, n: &[u64]) -> Result<ArrayRef> {
        words(&self.tables.channels, n, |n| self.channel_index(n))
    }

    fn bid_url(&self, n: &[u64]) -> Result<ArrayRef> {
        words(&self.tables.urls, n, |n| self.channel_index(n))
    }

    fn bid_extra(&self, n: &[u64]) -> Result<ArrayRef> {
        self.letters(n, |n| (self.r(n, 8), extra_length(self.r(n, 7), 32, 100)))
    }

    // Texts

    /// Letters of the pool: for each event where (as a random number) and how many.
    fn letters(&self, n: &[u64], draw: impl Fn(u64) -> (u64, u64)) -> Result<ArrayRef> {
        let pool = self.tables.letters.as_slice();
        let view = |n: &u64| {
            let (x, length) = draw(*n);
            make_view(slice(pool, x, length), 0, hi(x, POOL - length) as u32)
        };
        string_views(n.iter().map(view).collect(), vec![self.tables.letters.clone()])
    }

    /// Letters and blanks of the pool; a blank at either end becomes an 'x', in a copy.
    fn texts(&self, n: &[u64], draw: impl Fn(u64) -> (u64, u64)) -> Result<ArrayRef> {
        let pool = self.tables.text.as_slice();
        let mut copies = Vec::new();
        let view = |n: &u64| {
            let (x, length) = draw(*n);
            let text = slice(pool, x, length);
            if !text.starts_with(b" ") && !text.ends_with(b" ") {
                return make_view(text, 0, hi(x, POOL - length) as u32);
            }
            let at = copies.len();
            copies.extend_from_slice(text);
            for end in [at, copies.len() - 1] {
                if copies[end] == b' ' {
                    copies[end] = b'x';
                }
            }
            make_view(&copies[at..], 1, at as u32)
        };
        let views = n.iter().map(view).collect();
        string_views(views, vec![self.tables.text.clone(), Buffer::from(copies)])
    }
}

/// `length` bytes of `pool` from a random place on.
#[inline]
fn slice(pool: &[u8], x: u64, length: u64) -> &[u8] {
    let at = hi(x, POOL - length) as usize;
    &pool[at..at + length as usize]
}

#[inline]
fn text_length(x: u64, max: u64) -> u64 {
    3 + hi(x, max - 3)
}

/// Fills an event of `size` bytes up to about `average`.
#[inline]
fn extra_length(x: u64, size: u64, average: u64) -> u64 {
    let want = average.saturating_sub(size);
    let delta = (2 * want + 5) / 10;
    want - delta + hi(x, 2 * delta)
}

#[inline]
fn ints(n: &[u64], value: impl Fn(u64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from(n.iter().map(|n| value(*n)).collect::<Vec<i64>>()))
}

#[inline]
fn times(n: &[u64], millis: impl Fn(u64) -> i64) -> ArrayRef {
    let micros = |n: &u64| millis(*n).wrapping_mul(1000);
    Arc::new(TimestampMicrosecondArray::from(n.iter().map(micros).collect::<Vec<i64>>()))
}

/// Entries of a table: their views are copied, their bytes stay where they are.
#[inline]
fn words(table: &StringViewArray, n: &[u64], index: impl Fn(u64) -> u64) -> Result<ArrayRef> {
    let indices = UInt32Array::from(n.iter().map(|n| index(*n) as u32).collect::<Vec<u32>>());
    Ok(take(table, &indices, None)?)
}

/// The safe constructor looks at every byte, which is most of what a bid's `extra` costs (40 ns of 75).
fn string_views(views: Vec<u128>, buffers: Vec<Buffer>) -> Result<ArrayRef> {
    Ok(Arc::new(StringViewArray::try_new(views.into(), buffers, None)?))
}
