//! Of two copies of a device's state one alone goes on: what a Hello claims is held against what the server knows.

use gureum_proto::Life;

use crate::store::record::LifeRecord;

/// How a claim stands to what the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It follows from the newest state, or the server has forgotten a part: the life goes on with it.
    GoesOn,
    /// It was heard before, and its answer was lost: nothing changes.
    Heard,
    /// Another copy has taken over from it.
    Copied,
    /// It is an older copy of what the server knows.
    Stale,
}

/// Judges a claim.
#[must_use]
pub fn judge(known: &LifeRecord, claim: &Life) -> Standing {
    if known.lost.contains(&claim.token) || known.lost.contains(&claim.next) {
        Standing::Copied
    } else if known.token == claim.next {
        Standing::Heard
    } else if known.token == claim.token || claim.generation > known.generation {
        Standing::GoesOn
    } else {
        Standing::Stale
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::LifeToken;

    use super::*;
    use crate::limits::LIVES_LOST_KEPT;

    fn token(number: u8) -> LifeToken {
        LifeToken::from_bytes([number; 16])
    }

    fn claim(generation: u64, is: u8, next: u8) -> Life {
        Life { generation, token: token(is), next: token(next) }
    }

    /// Generation 5 with token 5; another copy has taken over from 3 and 4.
    fn known() -> LifeRecord {
        LifeRecord { generation: 5, token: token(5), lost: vec![token(3), token(4)] }
    }

    #[track_caller]
    fn check(generation: u64, is: u8, next: u8, expected: Standing) {
        assert_eq!(judge(&known(), &claim(generation, is, next)), expected);
    }

    #[test]
    fn a_claim_is_told_from_one_that_was_heard_from_a_copys_and_from_an_older_one() {
        check(5, 5, 6, Standing::GoesOn);
        check(4, 2, 5, Standing::Heard);
        check(7, 9, 10, Standing::GoesOn);
        check(5, 9, 10, Standing::Stale);
        check(1, 1, 10, Standing::Stale);
        check(4, 4, 10, Standing::Copied);
        check(9, 4, 10, Standing::Copied);
        check(2, 2, 3, Standing::Copied);
    }

    #[test]
    fn a_device_of_which_nothing_is_known_goes_on_from_whatever_it_claims() {
        for claim in [claim(0, 0, 1), claim(1, 1, 2), claim(u64::MAX, 1, 2)] {
            assert_eq!(judge(&LifeRecord::default(), &claim), Standing::GoesOn, "{claim:?}");
        }
    }

    #[test]
    fn each_connection_leads_to_the_next_and_one_that_was_forgotten_to_one_that_is_higher() {
        let mut life = LifeRecord::default();
        life.go_on(0, token(1));
        assert_eq!(life, LifeRecord { generation: 1, token: token(1), lost: vec![] });
        life.go_on(1, token(2));
        life.go_on(7, token(9));
        assert_eq!((life.generation, life.token), (8, token(9)));
    }

    #[test]
    fn of_two_copies_the_one_that_takes_over_goes_on_and_the_other_is_told() {
        let mut life = LifeRecord { generation: 5, token: token(5), lost: vec![] };
        let older = claim(2, 2, 30);
        assert_eq!(judge(&life, &older), Standing::Stale);
        assert!(life.take_over(older.next));
        assert_eq!(life, LifeRecord { generation: 6, token: token(30), lost: vec![token(5)] });
        assert!(!life.take_over(older.next), "once more changes nothing");
        assert_eq!(judge(&life, &older), Standing::Heard, "its answer may have been lost");
        assert_eq!(judge(&life, &claim(6, 30, 31)), Standing::GoesOn);
        assert_eq!(judge(&life, &claim(5, 5, 40)), Standing::Copied);
        assert_eq!(judge(&life, &claim(4, 4, 5)), Standing::Copied, "its answer was lost before");
    }

    #[test]
    fn the_latest_lost_lives_are_remembered() {
        let mut life = LifeRecord::default();
        for number in 1..=20 {
            life.take_over(token(number));
        }
        assert_eq!(life.lost.len(), LIVES_LOST_KEPT);
        assert_eq!(life.lost.last(), Some(&token(19)));
    }
}
