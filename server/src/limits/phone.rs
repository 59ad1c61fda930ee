//! The bounds of phone numbers, of the codes that prove them, and of what accounts decide about each other.

use std::num::NonZeroU32;

use super::ACCOUNT_CONVERSATIONS_MAX;

/// A day, in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long a code lives, in milliseconds: an SMS takes seconds, and rarely minutes.
pub const CODE_MS: u64 = 5 * 60 * 1_000;

/// Between two codes for one number, in milliseconds.
pub const CODE_AGAIN_MS: u64 = 60 * 1_000;

/// How many wrong codes use one up. With [`CODES_OF_NUMBER_PER_DAY`] somebody who guesses hits a number once in 50 years.
pub const CODE_TRIES_MAX: u8 = 5;

/// How many codes are sent to one number an hour.
pub const CODES_OF_NUMBER_PER_HOUR: NonZeroU32 = NonZeroU32::new(5).expect("it is not 0");

/// And a day.
pub const CODES_OF_NUMBER_PER_DAY: NonZeroU32 = NonZeroU32::new(10).expect("it is not 0");

/// The last digits of a number, without which it is a prefix: whoever earns on SMS that others pay buys such blocks.
pub const PREFIX_DIGITS_LEFT: usize = 4;

/// How many codes are sent to all numbers of a prefix an hour.
pub const CODES_OF_PREFIX_PER_HOUR: NonZeroU32 = NonZeroU32::new(20).expect("it is not 0");

/// How many codes one address, or one account, may ask for an hour.
pub const CODES_OF_ASKER_PER_HOUR: NonZeroU32 = NonZeroU32::new(10).expect("it is not 0");

/// How many codes are sent to all numbers an hour, where the operator sets no other count.
pub const CODES_PER_HOUR: NonZeroU32 = NonZeroU32::new(200).expect("it is not 0");

/// How many codes one address, or one account, may show an hour: whoever guesses, or uses up the tries of others, does so at
/// a few numbers.
pub const PROOFS_OF_ASKER_PER_HOUR: NonZeroU32 = NonZeroU32::new(30).expect("it is not 0");

/// How many accounts one account may look up by number an hour: a few people at a time, and not an address book of
/// guesses.
pub const PHONE_LOOK_UPS_PER_HOUR: NonZeroU32 = NonZeroU32::new(30).expect("it is not 0");

/// And a day.
pub const PHONE_LOOK_UPS_PER_DAY: NonZeroU32 = NonZeroU32::new(100).expect("it is not 0");

/// How many are looked up by number an hour by everybody: whoever makes many accounts walks no faster.
pub const PHONE_LOOK_UPS_OF_ALL_PER_HOUR: NonZeroU32 = NonZeroU32::new(5_000).expect("it is not 0");

/// How long a registration lock keeps a number after a device of its account was last seen, in milliseconds.
pub const LOCK_MS: u64 = 7 * DAY_MS;

/// How many wrong PINs close a registration lock.
pub const LOCK_TRIES_MAX: u8 = 5;

/// For how long they do, in milliseconds: a PIN of 4 digits stands for years.
pub const LOCK_CLOSED_MS: u64 = DAY_MS;

/// How often it is noted that somebody without a PIN was stopped by a lock, in milliseconds, and its account told.
pub const LOCK_TRY_NOTED_MS: u64 = 60 * 1_000;

/// Codes that wait to be handed to the gateway for SMS; and, of those that it was asked to take, as many that are tried again.
pub const SMS_QUEUE_MAX: usize = 256;

/// How many are handed to it at one time.
pub const SMS_IN_FLIGHT_MAX: usize = 8;

/// How often one is tried.
pub const SMS_TRIES_MAX: u32 = 3;

/// How long one try may take, in milliseconds.
pub const SMS_TRY_MS_MAX: u64 = 10_000;

/// How soon a code is asked for again that found the queue full, in milliseconds.
pub const SMS_FULL_RETRY_MS: u64 = 60_000;

/// Accounts that one account accepts or blocks.
pub const RELATIONS_MAX: usize = 5_000;

/// Relations, preferences and push targets that one account may change a minute: each is a durable write.
pub const DECISIONS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(120).expect("it is not 0");

/// And as fast as they come: all that it can have, as after an update of its app.
pub const DECISIONS_AT_ONCE_MAX: NonZeroU32 = NonZeroU32::new(10_000).expect("it is not 0");

const _: () = assert!(CODE_AGAIN_MS < CODE_MS && LOCK_CLOSED_MS < LOCK_MS);
const _: () = assert!(RELATIONS_MAX >= gureum_proto::limits::RELATIONS_PAGE);
const _: () = assert!(RELATIONS_MAX + ACCOUNT_CONVERSATIONS_MAX <= DECISIONS_AT_ONCE_MAX.get() as usize);
