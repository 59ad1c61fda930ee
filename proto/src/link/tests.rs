//! A code is read as it was shown, and what is sealed keeps its bounds.

use std::collections::BTreeSet;

use super::*;
use crate::Leave;
use crate::limits::{
    CONTACTS_PER_LINK_LEAVE, LINK_APPROVALS_MAX, LINK_APPROVALS_PER_OFFER_MAX, LINK_BUNDLE_BYTES_MAX,
    LINK_LEAVE_BYTES_MAX,
};

fn code() -> LinkCode {
    LinkCode::new([0x11; 32], [0x22; 16])
}

fn keys() -> DeviceKeys {
    let key = |seed| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes();
    DeviceKeys::new(&key(1), &key(2)).unwrap()
}

fn head() -> LogHead {
    LogHead { length: 3, hash: [9; 32] }
}

fn leave() -> SignedLeave {
    let leave = Leave {
        conversation: ConversationId::from_bytes([5; 16]),
        account: AccountId::from_bytes([1; 16]),
        device: DeviceId::from_bytes([4; 16]),
        leaf_key: vec![7; 32].into(),
    };
    SignedLeave::sign(leave, &ed25519_dalek::SigningKey::from_bytes(&[1; 32]))
}

#[test]
fn a_code_is_read_as_people_copy_it() {
    let text = code().to_text();
    assert_eq!(text.len(), 81);
    let in_groups = text.as_bytes().chunks(5).map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>();
    for typed in [text.to_string(), text.to_lowercase(), in_groups.join("-"), format!(" {} \n", in_groups.join(" "))] {
        assert_eq!(typed.parse(), Ok(code()), "{typed:?}");
    }
}

#[test]
fn text_that_is_no_code_is_refused() {
    let text = code().to_text();
    let version_two = format!("GL{}", data_encoding::BASE32_NOPAD.encode(&[&[2][..], &[1; 48]].concat()));
    for (typed, error) in [
        (String::new(), LinkCodeError::Text),
        ("GL".to_owned(), LinkCodeError::Text),
        (text[2..].to_owned(), LinkCodeError::Text),
        (text[..80].to_owned(), LinkCodeError::Text),
        (format!("{}A", *text), LinkCodeError::Text),
        (format!("{}{}", *text, "A".repeat(1000)), LinkCodeError::Text),
        (text.replace('A', "1"), LinkCodeError::Text),
        (version_two, LinkCodeError::Version),
    ] {
        assert_eq!(typed.parse::<LinkCode>(), Err(error), "{typed:?}");
    }
}

#[test]
fn whatever_follows_from_a_code_differs_with_each_part_of_it() {
    let codes = [code(), LinkCode::new([0x12; 32], [0x22; 16]), LinkCode::new([0x11; 32], [0x23; 16])];
    for (at, one) in codes.iter().enumerate() {
        for other in &codes[at + 1..] {
            assert_ne!(one.id(), other.id());
            assert_ne!(one.offer_key(), other.offer_key());
            assert_ne!(one.reply_key(), other.reply_key());
            assert_ne!(one.answer_info(), other.answer_info());
        }
        assert_ne!(one.offer_key(), one.reply_key());
    }
}

fn offer() -> LinkOffer {
    let commitment = CheckChain::from_seed([5; 32]).commitment(0);
    LinkOffer { keys: keys(), device_name: "tablet".to_owned(), wants_history: false, commitment }
}

fn proposal() -> LinkProposal {
    LinkProposal {
        account: AccountId::from_bytes([1; 16]),
        handle: "alice".parse().unwrap(),
        entry: Bytes::from_static(b"entry"),
        bundle_key: Zeroizing::new([7; 32]),
    }
}

#[test]
fn the_digits_tell_apart_what_travelled() {
    let digits = proposal().check_digits(&code(), b"offer", &[4; 32]);
    assert_eq!(digits.len(), 7);
    let is_digits = |part: &str| part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    assert!(digits.split(' ').all(is_digits), "{digits}");
    let other_key = LinkProposal { bundle_key: Zeroizing::new([8; 32]), ..proposal() };
    let other_account = LinkProposal { account: AccountId::from_bytes([2; 16]), ..proposal() };
    for others in [
        other_key.check_digits(&code(), b"offer", &[4; 32]),
        other_account.check_digits(&code(), b"offer", &[4; 32]),
        proposal().check_digits(&code(), b"Offer", &[4; 32]),
        proposal().check_digits(&code(), b"offer", &[3; 32]),
        proposal().check_digits(&LinkCode::new([0x11; 32], [0x23; 16]), b"offer", &[4; 32]),
    ] {
        assert_ne!(others, digits);
    }
    let later = LinkProposal { entry: Bytes::from_static(b"another"), ..proposal() };
    assert_eq!(later.check_digits(&code(), b"offer", &[4; 32]), digits, "the log may grow while a person compares");
}

#[test]
fn an_offer_binds_to_one_opening_for_each_of_a_few_approvals() {
    let chain = CheckChain::from_seed([5; 32]);
    let opening = |approval| chain.opening(approval).unwrap();
    let told: BTreeSet<_> = (1..=LINK_APPROVALS_MAX).map(opening).collect();
    assert_eq!(told.len(), 1_000, "each is another one");
    assert_eq!((chain.opening(0), chain.opening(LINK_APPROVALS_MAX + 1)), (None, None));
    for before in [0, 1, 500] {
        let offer = LinkOffer { commitment: chain.commitment(before), ..offer() };
        for approval in 1..=LINK_APPROVALS_PER_OFFER_MAX {
            assert!(offer.is_opened_by(&opening(before + approval)), "{before} {approval}");
        }
        assert!(!offer.is_opened_by(&opening(before + LINK_APPROVALS_PER_OFFER_MAX + 1)), "{before}");
        for other in [offer.commitment, [0; 32], CheckChain::from_seed([6; 32]).opening(before + 1).unwrap()] {
            assert!(!offer.is_opened_by(&other), "{before}");
        }
    }
    let later = LinkOffer { commitment: chain.commitment(1), ..offer() };
    assert!(!later.is_opened_by(&opening(1)), "what was told opens nothing after it");
}

#[track_caller]
fn written(bytes: &[u8], expected: &str) {
    assert_eq!(data_encoding::HEXLOWER.encode(bytes), expected);
}

#[test]
fn what_is_sealed_comes_back_and_has_these_bytes() {
    let offer = LinkOffer { commitment: [6; 32], ..offer() };
    written(
        &offer.encode(),
        "0a440a208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c12208139770ea87d175f56a3\
         5466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b39412067461626c65742220\
         0606060606060606060606060606060606060606060606060606060606060606",
    );
    assert_eq!(LinkOffer::decode(&offer.encode()), Ok(offer.clone()));
    let asking = LinkOffer { wants_history: true, ..offer.clone() };
    let whole = offer.encode();
    let (before, commitment) = whole.split_at(whole.len() - 34);
    assert_eq!(asking.encode(), [before, &[0x18, 0x01], commitment].concat());
    assert_eq!(LinkOffer::decode(&asking.encode()), Ok(asking));
    let proposal = proposal();
    written(
        &proposal.encode(),
        "0a10010101010101010101010101010101011205616c6963651a05656e74727922200707070707070707070707070707\
         070707070707070707070707070707070707",
    );
    assert_eq!(LinkProposal::decode(&proposal.encode()), Ok(proposal));
    let consent = LinkConsent { countersignature: [8; 64], opening: [5; 32] };
    written(
        &consent.encode(),
        "0a4008080808080808080808080808080808080808080808080808080808080808080808080808080808080808080808\
         0808080808080808080808080808080808081220\
         0505050505050505050505050505050505050505050505050505050505050505",
    );
    assert_eq!(LinkConsent::decode(&consent.encode()), Ok(consent));
    let contact = LinkContact { account: AccountId::from_bytes([2; 16]), handle: "bob".parse().unwrap(), log: head() };
    let bundle = LinkBundle {
        account: AccountId::from_bytes([1; 16]),
        log: head(),
        contacts: vec![contact],
        conversations: vec![(ConversationId::from_bytes([3; 16]), 5), (ConversationId::from_bytes([2; 16]), 0)],
        devices: vec![(DeviceId::from_bytes([4; 16]), "laptop".to_owned())],
        leaves: vec![],
    };
    written(
        &bundle.encode(),
        "0a100101010101010101010101010101010110031a200909090909090909090909090909090909090909090909090909\
         090909090909223b0a10020202020202020202020202020202021203626f621803222009090909090909090909090909\
         090909090909090909090909090909090909092a140a100303030303030303030303030303030310052a120a10020202\
         02020202020202020202020202321a0a100404040404040404040404040404040412066c6170746f70",
    );
    let left = LinkBundle { leaves: vec![leave()], ..bundle.clone() };
    let statement = leave().encode();
    let length = [u8::try_from(statement.len()).unwrap(), 1];
    assert_eq!(left.encode(), [bundle.encode(), vec![0x3a], length.to_vec(), statement.to_vec()].concat());
    for bundle in [bundle, left] {
        assert_eq!(LinkBundle::decode(&bundle.encode()), Ok(bundle));
    }
}

#[test]
fn the_names_of_devices_keep_their_bounds() {
    let read = |name: &str| {
        let offer = LinkOffer { device_name: name.to_owned(), ..offer() };
        LinkOffer::decode(&offer.encode())
    };
    assert!(read(&"n".repeat(DEVICE_NAME_BYTES_MAX)).is_ok());
    assert_eq!(read(&"n".repeat(DEVICE_NAME_BYTES_MAX + 1)), Err(PayloadError::TooLong("device name")));
    for name in ["", "two\nlines", "\u{1b}[2J"] {
        assert_eq!(read(name), Err(PayloadError::Invalid("device name")), "{name:?}");
    }
}

#[test]
fn the_largest_bundle_fits_and_a_larger_one_is_refused() {
    let contact = LinkContact {
        account: AccountId::from_bytes([0xff; 16]),
        handle: "h".repeat(crate::limits::HANDLE_BYTES_MAX).parse().unwrap(),
        log: LogHead { length: crate::limits::LOG_ENTRIES_MAX, hash: [0xff; 32] },
    };
    let mut bundle = LinkBundle {
        account: AccountId::from_bytes([0xff; 16]),
        log: head(),
        contacts: vec![contact.clone(); LINK_CONTACTS_MAX - CONTACTS_PER_LINK_LEAVE * LINK_LEAVES_MAX],
        conversations: vec![(ConversationId::from_bytes([0xff; 16]), u64::MAX); LINK_CONVERSATIONS_MAX],
        devices: vec![(DeviceId::from_bytes([0xff; 16]), "n".repeat(DEVICE_NAME_BYTES_MAX)); DEVICES_MAX],
        leaves: vec![leave(); LINK_LEAVES_MAX],
    };
    assert!(leave().encode().len() <= LINK_LEAVE_BYTES_MAX);
    let fits = |bundle: &LinkBundle| {
        let bytes = bundle.encode();
        // A nonce and a tag come with the seal.
        assert!(bytes.len() + 28 <= LINK_BUNDLE_BYTES_MAX, "{}", bytes.len());
        assert_eq!(LinkBundle::decode(&bytes).as_ref(), Ok(bundle));
    };
    fits(&bundle);
    bundle.leaves.push(leave());
    assert_eq!(LinkBundle::decode(&bundle.encode()), Err(PayloadError::TooLong("list of leaves")));
    bundle.leaves.clear();
    bundle.contacts = vec![contact.clone(); LINK_CONTACTS_MAX];
    fits(&bundle);
    bundle.contacts.push(contact);
    assert_eq!(LinkBundle::decode(&bundle.encode()), Err(PayloadError::TooLong("list of contacts")));
}

#[test]
fn secrets_stay_out_of_the_log() {
    assert_eq!(format!("{:?}", code()), "LinkCode { .. }");
    assert_eq!(format!("{:?}", CheckChain::from_seed([5; 32])), "CheckChain { .. }");
    let proposal = LinkProposal { bundle_key: Zeroizing::new([0x77; 32]), ..proposal() };
    assert!(!format!("{proposal:?}").contains("119"));
}
