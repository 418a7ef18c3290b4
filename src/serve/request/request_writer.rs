//! Writes a request that contains a model input.

use anyhow::Result;

use crate::serve::request::args::RequestContentArgs;
use crate::serve::request::required_fields::RequiredFields;
use crate::stage::clock::{Clock, Ids};
use crate::wire::object::ObjectWriter;
use crate::wire::trace::{TRACEPARENT, TRACESTATE, TraceContext};

/// Makes ids and writes requests.
#[derive(Debug)]
pub struct RequestWriter {
    required: RequiredFields,
    return_address: Option<String>,
    score_topic: Option<String>,
    clock: Clock,
    ids: Ids,
}

impl RequestWriter {
    /// Loads the model whose features an input needs, if the flags name one. Fails if
    /// the model file cannot be read.
    pub fn new(args: RequestContentArgs) -> Result<RequestWriter> {
        Ok(RequestWriter {
            required: match &args.model {
                Some(path) => RequiredFields::of_model(path)?,
                None => RequiredFields::named(args.fields),
            },
            return_address: args.return_address,
            score_topic: args.score_topic,
            clock: args.clock,
            ids: args.ids,
        })
    }

    /// The fields that an input needs.
    pub fn required(&self) -> &RequiredFields {
        &self.required
    }

    /// Checks that `model_input` has the fields that it needs. The error names the
    /// fault.
    pub fn check(&mut self, model_input: &str) -> Result<(), String> {
        self.required.check(model_input)
    }

    /// Makes an id.
    pub fn next_id(&mut self) -> String {
        self.ids.next_id()
    }

    /// Appends a request to `out`, with its newline. `model_input` is JSON text
    /// without newlines. `trace` is the trace that the request belongs to.
    pub fn write(
        &self,
        message_id: &str,
        model_input: &str,
        trace: Option<&TraceContext>,
        out: &mut Vec<u8>,
    ) {
        let mut request = ObjectWriter::new(out);
        request
            .string("messageId", message_id)
            .display("timestamp", self.clock.unix().as_seconds())
            .raw("modelInput", model_input);
        if let Some(address) = &self.return_address {
            request.string("returnAddress", address);
        }
        if let Some(topic) = &self.score_topic {
            request.string("scoreTopic", topic);
        }
        if let Some(trace) = trace {
            request.string(TRACEPARENT, &trace.parent);
            if let Some(state) = &trace.state {
                request.string(TRACESTATE, state);
            }
        }
        request.end();
        out.push(b'\n');
    }
}
