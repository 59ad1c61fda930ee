//! Arbitrary payloads through the domain types: none panics, and what one reads it writes and reads again.

#![no_main]

use bytes::{Bytes, BytesMut};
use gureum_fuzz::decode;
use gureum_proto::{
    AddDraft, ClientFrame, CommitAttachment, DeliveryFrame, DeviceLog, GroupState, LeafIdentity, LinkBundle, LinkCode,
    LinkConsent, LinkOffer, LinkProposal, PushTarget, Request, Response, ServerFrame, ServerUrl, Typing, put_ack,
    put_link, put_link_reply, put_recover, put_register, put_request_code, put_send,
};
use gureum_wire::{Frame, FrameKind};
use libfuzzer_sys::fuzz_target;

/// A list of one number is packed, as proto3 wants it, and may be read in the form that is not, which is a byte
/// shorter; the length around it may take one more.
const PACKED_BYTES: usize = 2;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let kinds = FrameKind::ALL;
    let payload = Bytes::copy_from_slice(rest);
    // A byte past the frame types chooses one of what travels inside of them, or as text.
    match kinds.get(usize::from(*first) % (kinds.len() + 3)) {
        Some(kind) if payload.len() <= kind.payload_bytes_max() => frames(Frame { kind: *kind, payload }),
        Some(_) => {}
        None => others(rest),
    }
});

/// Exactly one of the readers may know a type.
fn frames(frame: Frame) {
    if let Ok(read) = ClientFrame::decode(frame.clone()) {
        client(&read);
    }
    stable(&frame, ServerFrame::decode, ServerFrame::put);
    stable(&frame, DeliveryFrame::decode, DeliveryFrame::put);
    stable(&frame, Request::decode, Request::put);
    stable(&frame, Response::decode, Response::put);
}

fn stable<T: PartialEq + std::fmt::Debug, E>(
    frame: &Frame,
    read: impl Fn(Frame) -> Result<T, E>,
    write: impl Fn(&T, &mut BytesMut),
) {
    let Ok(value) = read(frame.clone()) else { return };
    let written = one(|out| write(&value, out));
    assert_eq!(written.kind, frame.kind);
    assert!(written.payload.len() <= frame.payload.len() + PACKED_BYTES, "what is written is the shortest form");
    let again = read(written.clone()).ok().expect("what was written can be read");
    assert_eq!(again, value);
    assert_eq!(one(|out| write(&again, out)).payload, written.payload);
}

fn client(frame: &ClientFrame) {
    match frame {
        ClientFrame::Hello(hello) => {
            let _ = hello.speaks_our_version();
            let key = ed25519_dalek::SigningKey::from_bytes(&[0x77; 32]).verifying_key();
            assert!(hello.verify(&key, &[6; 32]).is_err(), "nobody has signed this");
        }
        ClientFrame::Register(register) => {
            let written = one(|out| put_register(register, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::Register(again)) if again == *register));
        }
        ClientFrame::Link(link) => {
            let written = one(|out| put_link(link, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::Link(again)) if again == *link));
        }
        ClientFrame::LinkReply(reply) => {
            let written = one(|out| put_link_reply(reply, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::LinkReply(again)) if again == *reply));
        }
        ClientFrame::Recover(recover) => {
            let written = one(|out| put_recover(recover, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::Recover(again)) if again == *recover));
        }
        ClientFrame::RequestCode(phone) => {
            let written = one(|out| put_request_code(phone, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::RequestCode(again)) if again == *phone));
        }
        ClientFrame::Send(send) => {
            let written = one(|out| put_send(send, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::Send(again)) if again == *send));
        }
        ClientFrame::Ack(position) => {
            let written = one(|out| put_ack(*position, out));
            assert!(matches!(ClientFrame::decode(written), Ok(ClientFrame::Ack(again)) if again == *position));
        }
    }
}

fn others(bytes: &[u8]) {
    if let Ok(mut log) = DeviceLog::from_root(bytes) {
        let before = log.clone();
        assert!(log.append(bytes).is_err(), "a root stands at the beginning only");
        assert_eq!(log, before);
    }
    if let Ok(identity) = LeafIdentity::parse(bytes) {
        assert_eq!(identity.to_bytes(), bytes);
    }
    links(bytes);
    if let Ok(state) = GroupState::decode(bytes) {
        assert_eq!(GroupState::decode(&state.encode()), Ok(state));
    }
    if let Ok(attachment) = CommitAttachment::decode(bytes) {
        assert_eq!(CommitAttachment::decode(&attachment.encode()), Ok(attachment));
    }
    if let Ok(typing) = Typing::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Typing::decode(typing.encode()), Ok(typing));
    }
    if let Ok(target) = PushTarget::decode(bytes) {
        assert_eq!(target.check(), Ok(()));
        assert_eq!(PushTarget::decode(&target.encode()), Ok(target));
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(url) = text.parse::<ServerUrl>() {
        assert_eq!(url.to_string().parse(), Ok(url));
    }
}

fn links(bytes: &[u8]) {
    if let Ok(offer) = LinkOffer::decode(bytes) {
        assert_eq!(LinkOffer::decode(&offer.encode()), Ok(offer));
    }
    if let Ok(proposal) = LinkProposal::decode(bytes) {
        assert_eq!(LinkProposal::decode(&proposal.encode()), Ok(proposal));
    }
    if let Ok(consent) = LinkConsent::decode(bytes) {
        assert_eq!(LinkConsent::decode(&consent.encode()), Ok(consent));
    }
    if let Ok(bundle) = LinkBundle::decode(bytes) {
        assert_eq!(LinkBundle::decode(&bundle.encode()), Ok(bundle));
    }
    let _ = AddDraft::read(bytes);
    if let Ok(code) = String::from_utf8_lossy(bytes).parse::<LinkCode>() {
        assert_eq!(code.to_text().parse(), Ok(code));
    }
}

fn one(write: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    write(&mut out);
    let (mut frames, end) = decode([out.freeze()]);
    assert_eq!((frames.len(), end), (1, Ok(())));
    frames.remove(0)
}
