//! MQTT 3.1.1 at QoS 1 with a persistent session; the packets are rumqttc's.

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Disconnect, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, QoS};

use super::{Role, Seen, Wire};
use crate::limits::MQTT_BYTES_MAX;
use crate::line::Line;

pub(crate) struct Mqtt {
    topic: String,
    packet_id: u16,
}

pub(crate) async fn login(line: &mut Line, role: Role, pair: usize) -> anyhow::Result<Mqtt> {
    let mut connect = Connect::new(format!("{role:?}-{pair}"));
    connect.clean_session = role == Role::Sender;
    connect.keep_alive = 0;
    connect.write(&mut line.output)?;
    line.flush().await?;
    let Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present }) = next(line).await? else {
        bail!("the connection was refused");
    };
    let topic = format!("pair/{pair}");
    // A session that the server still has is subscribed, and its messages may come before any answer.
    if role == Role::Receiver && !session_present {
        let mut subscribe = Subscribe::new(topic.as_str(), QoS::AtLeastOnce);
        subscribe.pkid = 1;
        subscribe.write(&mut line.output)?;
        line.flush().await?;
        let Packet::SubAck(SubAck { return_codes, .. }) = next(line).await? else { bail!("no SUBACK") };
        ensure!(return_codes == [SubscribeReasonCode::Success(QoS::AtLeastOnce)], "the subscription was refused");
    }
    Ok(Mqtt { topic, packet_id: 0 })
}

async fn next(line: &mut Line) -> anyhow::Result<Packet> {
    loop {
        if let Some(packet) = take(&mut line.input)? {
            return Ok(packet);
        }
        line.fill().await?;
    }
}

fn take(input: &mut BytesMut) -> anyhow::Result<Option<Packet>> {
    match Packet::read(input, MQTT_BYTES_MAX) {
        Ok(packet) => Ok(Some(packet)),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(error).context("MQTT"),
    }
}

impl Wire for Mqtt {
    fn send(&mut self, body: &[u8], output: &mut BytesMut) -> anyhow::Result<()> {
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        let body = Bytes::copy_from_slice(body);
        let mut publish = Publish::from_bytes(self.topic.as_str(), QoS::AtLeastOnce, body);
        publish.pkid = self.packet_id;
        publish.write(output)?;
        Ok(())
    }

    fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut, seen: &mut Seen) -> anyhow::Result<()> {
        while let Some(packet) = take(input)? {
            match packet {
                Packet::PubAck(_) => seen.accepted += 1,
                Packet::Publish(publish) => {
                    PubAck::new(publish.pkid).write(output)?;
                    seen.bodies.push(publish.payload);
                }
                other => bail!("unexpected {other:?}"),
            }
        }
        Ok(())
    }

    fn leave(&mut self, output: &mut BytesMut) {
        // Two bytes into memory: it cannot fail.
        drop(Disconnect.write(output));
    }
}
