//! Messages from the brokers to the program.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::bridge::frame::{framed, marked_as_repeat};
use crate::bridge::inbox::Event;
use crate::bridge::ledger::{Action, Delivered, Delivery, DoneRule};
use crate::bridge::run::rejecting::Rejected;
use crate::bridge::run::{Bridge, LINES_MAX, Phase};
use crate::wire::reject::Reject;

impl Bridge<'_> {
    /// Takes what the brokers have sent. Returns whether there was anything.
    pub(super) fn take_events(&mut self) -> Result<bool> {
        let events = self.inbox.take();
        let is_busy = !events.is_empty();
        for event in events {
            self.take_event(event)?;
        }
        Ok(is_busy)
    }

    fn take_event(&mut self, event: Event) -> Result<()> {
        self.stage.stats.touch();
        match event {
            Event::Message { .. } => self.take_message(event)?,
            Event::Assigned { input } => self.inputs[input].is_assigned = true,
            Event::Revoked {
                input,
                topic,
                partition,
            } => self.ledger.revoked(input, topic, partition),
            Event::Lag { input, messages } => self.inputs[input].lag = messages,
            Event::Published(key) => {
                self.counts.published += 1;
                self.landed(key);
                self.ledger.safe(key);
            }
            Event::Refused {
                key,
                payload,
                reason,
            } => {
                if self.landed(key) {
                    bail!("the topic of --rejects-to takes no such record: {reason}");
                }
                self.reject(Rejected {
                    key,
                    input: None,
                    position: None,
                    raw: &payload,
                    reject: Reject::Refused(reason),
                })?;
            }
            Event::Trouble(message) => self.stage.report.warn_seldom("broker", &message),
            Event::Recovered(message) => self.stage.report.info_if_new("broker", &message),
            Event::Failed(message) => bail!(message),
        }
        Ok(())
    }

    fn take_message(&mut self, event: Event) -> Result<()> {
        let Event::Message {
            input,
            position,
            handle,
            payload,
            is_repeat,
            batch,
        } = event
        else {
            return Ok(());
        };
        self.inputs[input].gate.arrived(payload.len());
        let needs_id = matches!(self.plan.inputs[input].rules.done, DoneRule::Outputs(_));
        let frame = framed(&payload, self.stage.line_bytes_max).and_then(|frame| {
            match needs_id && frame.id.is_none() {
                true => Err(Reject::Field("field \"messageId\" is missing".to_owned())),
                false => Ok(frame),
            }
        });
        let (line, id, fault) = match frame {
            Ok(frame) => (frame.line, frame.id, None),
            Err(fault) => (payload.into_boxed_slice(), None, Some(fault)),
        };
        let delivered = self.ledger.delivered(
            input,
            Delivery {
                position,
                handle,
                id,
                line,
                is_repeat,
                batch,
            },
        );
        if let (Delivered::New(message), Some(reject)) = (delivered, fault) {
            let key = self.ledger.bad_message(input, message);
            let raw = self.ledger.origin(key).map(|it| it.1.to_vec());
            self.reject(Rejected {
                key,
                input: Some(input),
                position: Some(position),
                raw: &raw.unwrap_or_default(),
                reject,
            })?;
        }
        Ok(())
    }

    /// Gives waiting messages to the program, or publishes them as they are. Returns
    /// whether more could be given at once.
    pub(super) fn give_messages(&mut self) -> Result<bool> {
        if self.phase == Phase::Starting {
            return Ok(false);
        }
        let mut is_busy = false;
        for input in 0..self.inputs.len() {
            is_busy |= match self.plan.is_direct() {
                true => self.publish_directly(input)?,
                false => self.write_messages(input)?,
            };
        }
        Ok(is_busy)
    }

    fn write_messages(&mut self, input: usize) -> Result<bool> {
        let now = self.work_time.at(Instant::now());
        let state = &mut self.inputs[input];
        let marks_repeats = state.marks_repeats;
        let Some(writer) = &mut state.writer else {
            return Ok(false);
        };
        while self.phase == Phase::Running && writer.has_room() {
            let Some((key, line)) = self.ledger.give(input, now) else {
                break;
            };
            if marks_repeats {
                let line = line.to_vec();
                match self.ledger.is_repeat(input, key) {
                    true => writer.add(key, &marked_as_repeat(&line)),
                    false => writer.add(key, &line),
                }
            } else {
                writer.add(key, line);
            }
        }
        let is_own_stdout = self.program.is_none();
        let taken = writer.write();
        let is_cut_off = is_own_stdout && !writer.is_open() && self.phase == Phase::Running;
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => bail!("{}: cannot write: {error}", state.name),
        };
        let has_written = !taken.is_empty();
        for key in taken {
            self.ledger.written(input, key);
        }
        if is_cut_off {
            return Err(crate::stage::EndedEarly::DownstreamClosed.into());
        }
        Ok(has_written)
    }

    /// From topic to topic: the message is its own output.
    fn publish_directly(&mut self, input: usize) -> Result<bool> {
        for _ in 0..LINES_MAX {
            if !self.may_publish() || self.phase != Phase::Running {
                return Ok(false);
            }
            let now = self.work_time.at(Instant::now());
            let Some((message, line)) = self.ledger.give(input, now) else {
                return Ok(false);
            };
            let line = line.to_vec();
            let key = self.ledger.output_of(input, message, 0);
            self.publish_record(0, key, line)?;
        }
        Ok(true)
    }

    /// Does what the ledger asks for.
    pub(super) fn apply_actions(&mut self) -> Result<()> {
        let mut finished: Vec<Vec<_>> = vec![Vec::new(); self.inputs.len()];
        let actions = self.ledger.take_actions();
        if !actions.is_empty() {
            // Time alone may have finished messages.
            self.stage.stats.touch();
        }
        for action in actions {
            match action {
                Action::Acknowledge { input, handle } => finished[input].push(handle),
                Action::Commit {
                    input,
                    partition,
                    next,
                    ..
                } => self.clients.commit(input, partition, next),
                Action::SetAside {
                    input,
                    output,
                    position,
                    line,
                    reason,
                } => self.set_aside(input, output, position, &line, reason)?,
            }
        }
        for (input, handles) in finished.into_iter().enumerate() {
            if !handles.is_empty() {
                self.clients.acknowledge(input, handles);
            }
        }
        Ok(())
    }
}
