//! The bytes of what is said about phone numbers.

use super::*;
use crate::{CodeSent, LockSecret, Phone, PhoneChange, PhoneProof, put_request_code};

fn phone() -> Phone {
    "+82 10-1234-5678".parse().unwrap()
}

fn proof() -> PhoneProof {
    let lock = Some(LockSecret::from_bytes([0x4c; 32]));
    PhoneProof { phone: phone(), code: "123456".parse().unwrap(), lock, findable: true }
}

fn code_sent() -> CodeSent {
    CodeSent { expires_ms: 300_000, again_after_ms: 60_000, phone: "+821012345678".parse().unwrap() }
}

#[test]
fn a_registration_with_a_phone_number_has_these_bytes() {
    let asked = client(|out| put_request_code(&phone(), out), "13120a102b38322031302d313233342d35363738");
    assert!(matches!(asked, ClientFrame::RequestCode(again) if again == phone()));

    let register =
        |phone| Register { token: bytes("tok"), handle: "alice".into(), root_entry: bytes("root"), phone: Some(phone) };
    let locked = register(proof());
    let read = client(
        |out| put_register(&locked, out),
        "0640500a03746f6b1205616c6963651a04726f6f7422102b38322031302d313233342d353637382a0631323334353632\
         204c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c3801",
    );
    assert!(matches!(read, ClientFrame::Register(again) if again == locked));
    let plain = register(PhoneProof { lock: None, findable: false, ..proof() });
    let read = client(
        |out| put_register(&plain, out),
        "062c0a03746f6b1205616c6963651a04726f6f7422102b38322031302d313233342d353637382a06313233343536",
    );
    assert!(matches!(read, ClientFrame::Register(again) if again == plain));
}

#[test]
fn server_frames_about_phone_numbers_have_these_bytes() {
    server(ServerFrame::CodeSent(code_sent()), "141708e0a71210e0d4031a0d2b383231303132333435363738");
    let notice = PhoneNotice { moved_ms: 1_800_000_000_000, tried_ms: 7 };
    server(ServerFrame::PhoneNotice(notice), "5001090880a0f1c2b1341007");
    server(ServerFrame::PhoneNotice(PhoneNotice::default()), "500100");
    let ready = Ready { push_differs: true, phone: notice, ..Ready::default() };
    server(ServerFrame::Ready(ready), "020c70017880a0f1c2b134800107");
}

#[test]
fn requests_about_phone_numbers_have_these_bytes() {
    let by = FindBy::Phone(phone());
    request(Request::FindAccount { by, log_from: 1 }, "20160a1422102b38322031302d313233342d353637381801");
    request(Request::RequestCode(phone()), "2015b201120a102b38322031302d313233342d35363738");
    request(
        Request::SetPhone(PhoneChange::Set(proof())),
        "204043ba01400a102b38322031302d313233342d3536373812063132333435361a204c4c4c4c4c4c4c4c4c4c4c4c4c4c\
         4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c20012801",
    );
    request(Request::SetPhone(PhoneChange::Findable(true)), "2007ba010420012802");
    request(Request::SetPhone(PhoneChange::Findable(false)), "2005ba01022802");
    request(Request::SetPhone(PhoneChange::Remove), "2005ba01022803");
    request(
        Request::SetLock(Some(LockSecret::from_bytes([0x4c; 32]))),
        "2025c201220a204c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c",
    );
    request(Request::SetLock(None), "2003c20100");
    request(Request::DeleteAccount { handle: "alice".parse().unwrap() }, "200aca01070a05616c696365");
    response(Response::CodeSent(code_sent()), "211a9a011708e0a71210e0d4031a0d2b383231303132333435363738");
}
