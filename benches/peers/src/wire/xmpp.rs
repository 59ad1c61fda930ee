//! XMPP with SASL PLAIN and stream management; registers its account itself. Stanzas are read by quick-xml.
//!
//! No maintained crate under a permissive licence speaks XMPP as a client; what is needed of it is this.

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use data_encoding::BASE64;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, errors::Error};

use super::{Role, Seen, Wire};
use crate::certificate::HOST;
use crate::line::Line;

const PASSWORD: &str = "peers";

pub(crate) struct Xmpp {
    to: String,
    /// What the server has said to have, and what came from it, as stream management counts.
    acked: u64,
    received: u64,
    /// Came while the session was made.
    early: Vec<Bytes>,
}

/// What is directly below the stream.
#[derive(Debug, Default, PartialEq)]
struct Stanza {
    name: String,
    /// The attribute `h` of an answer of stream management.
    h: Option<u64>,
    body: Option<Bytes>,
}

pub(crate) async fn login(line: &mut Line, role: Role, pair: usize) -> anyhow::Result<Xmpp> {
    let user = format!("{role:?}{pair}").to_lowercase();
    open_stream(line).await?;
    // Whether it is new or known is all the same: the password is.
    let register = format!(
        "<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>{user}</username>\
         <password>{PASSWORD}</password></query></iq>"
    );
    ask(line, &register, "iq").await?;
    let secret = BASE64.encode(format!("\0{user}\0{PASSWORD}").as_bytes());
    let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>");
    ask(line, &auth, "success").await?;
    open_stream(line).await?;
    let bind = "<iq type='set' id='2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>peers</resource></bind>\
                </iq>";
    ask(line, bind, "iq").await?;
    ask(line, "<enable xmlns='urn:xmpp:sm:3'/>", "enabled").await?;
    let mut xmpp = Xmpp { to: format!("receiver{pair}@{HOST}"), acked: 0, received: 0, early: Vec::new() };
    if role == Role::Receiver {
        line.output.put_slice(b"<presence/>");
        line.flush().await?;
        // Its own presence comes back once messages go to it.
        loop {
            let stanza = next(line).await?;
            let is_presence = stanza.name == "presence";
            let mut seen = Seen::default();
            xmpp.handle(stanza, &mut line.output, &mut seen)?;
            xmpp.early.append(&mut seen.bodies);
            if is_presence {
                break;
            }
        }
        line.flush().await?;
    }
    Ok(xmpp)
}

async fn open_stream(line: &mut Line) -> anyhow::Result<()> {
    let header = format!(
        "<?xml version='1.0'?><stream:stream to='{HOST}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    ask(line, &header, "stream:features").await
}

/// Sends, and takes what comes until the answer.
async fn ask(line: &mut Line, text: &str, answer: &str) -> anyhow::Result<()> {
    line.output.put_slice(text.as_bytes());
    line.flush().await?;
    loop {
        let stanza = next(line).await?;
        let is_failure = matches!(stanza.name.as_str(), "failure" | "failed" | "stream:error");
        ensure!(!is_failure, "ejabberd refuses {text}");
        if stanza.name == answer {
            return Ok(());
        }
    }
}

async fn next(line: &mut Line) -> anyhow::Result<Stanza> {
    loop {
        if let Some(stanza) = take(&mut line.input)? {
            return Ok(stanza);
        }
        line.fill().await?;
    }
}

/// The first complete stanza; the opening of a stream counts as one.
fn take(input: &mut BytesMut) -> anyhow::Result<Option<Stanza>> {
    let Some((stanza, bytes)) = parse(input)? else { return Ok(None) };
    input.advance(bytes);
    Ok(Some(stanza))
}

fn parse(input: &[u8]) -> anyhow::Result<Option<(Stanza, usize)>> {
    let mut reader = Reader::from_reader(input);
    // The closing tags of streams that were opened in an earlier call.
    reader.config_mut().check_end_names = false;
    reader.config_mut().allow_unmatched_ends = true;
    let mut stanza = Stanza::default();
    let (mut depth, mut is_body) = (0_u32, false);
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            // Cut off in the middle of a tag.
            Err(Error::Syntax(_)) => return Ok(None),
            Err(error) => return Err(error).context("XML"),
        };
        match event {
            Event::Start(tag) if tag.name().as_ref() == "stream:stream" => depth = 1,
            Event::Start(tag) => {
                depth += 1;
                is_body = depth == 2 && tag.name().as_ref() == "body";
                if depth == 1 {
                    stanza = named(&tag)?;
                }
            }
            Event::Empty(tag) if depth == 0 => stanza = named(&tag)?,
            Event::Text(text) if is_body => stanza.body = Some(Bytes::copy_from_slice(text.as_bytes())),
            Event::End(tag) if depth == 0 => {
                bail!("ejabberd closed the stream: {}", tag.name().as_ref())
            }
            Event::End(_) => {
                depth -= 1;
                is_body = false;
            }
            Event::Eof => return Ok(None),
            // The declaration before a stream, and what stands in a stanza beside its body.
            _ => continue,
        }
        let is_stream = depth == 1 && stanza.name.is_empty();
        if depth == 0 || is_stream {
            return Ok(Some((stanza, usize::try_from(reader.buffer_position())?)));
        }
    }
}

fn named(tag: &BytesStart<'_>) -> anyhow::Result<Stanza> {
    let h = match tag.try_get_attribute("h")? {
        Some(h) => Some(h.value.parse()?),
        None => None,
    };
    Ok(Stanza { name: tag.name().as_ref().to_owned(), h, body: None })
}

impl Xmpp {
    fn handle(&mut self, stanza: Stanza, output: &mut BytesMut, seen: &mut Seen) -> anyhow::Result<()> {
        match stanza.name.as_str() {
            "a" => {
                let h = stanza.h.context("an answer without a count")?;
                seen.accepted += h.saturating_sub(self.acked);
                self.acked = h;
            }
            "r" => output.put_slice(format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.received).as_bytes()),
            "message" => {
                self.received += 1;
                seen.bodies.push(stanza.body.context("a message without a body")?);
            }
            "presence" | "iq" => self.received += 1,
            other => bail!("unexpected {other}"),
        }
        Ok(())
    }
}

impl Wire for Xmpp {
    fn send(&mut self, body: &[u8], output: &mut BytesMut) -> anyhow::Result<()> {
        output.put_slice(format!("<message to='{}' type='chat'><body>", self.to).as_bytes());
        output.put_slice(body);
        output.put_slice(b"</body></message>");
        Ok(())
    }

    fn sent(&mut self, output: &mut BytesMut) {
        output.put_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
    }

    fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut, seen: &mut Seen) -> anyhow::Result<()> {
        seen.bodies.append(&mut self.early);
        while let Some(stanza) = take(input)? {
            self.handle(stanza, output, seen)?;
        }
        Ok(())
    }

    fn leave(&mut self, output: &mut BytesMut) {
        output.put_slice(b"<presence type='unavailable'/></stream:stream>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Stanza> {
        let mut input = BytesMut::from(text);
        std::iter::from_fn(|| take(&mut input).unwrap()).collect()
    }

    #[test]
    fn splits_a_stream_into_stanzas() {
        let names = |text| all(text).into_iter().map(|stanza| stanza.name).collect::<Vec<_>>();
        let stream = "<?xml version='1.0'?><stream:stream id='1'><stream:features><a/><b>c</b></stream:features>";
        assert_eq!(names(stream), ["", "stream:features"]);
        assert_eq!(names("<a h='4'/><r/><presence from='x'/>"), ["a", "r", "presence"]);
        assert_eq!(all("<a xmlns='urn:xmpp:sm:3' h='4'/>").first().unwrap().h, Some(4));
    }

    #[test]
    fn a_stanza_cut_anywhere_is_none_yet() {
        let text = "<message to='a' from='b'><body>hello</body><delay stamp='x'>Offline</delay></message>";
        assert_eq!(all(text).first().unwrap().body.as_deref(), Some(b"hello".as_slice()));
        for cut in 0..text.len() {
            assert_eq!(all(&text[..cut]), [], "{cut}");
        }
    }
}
