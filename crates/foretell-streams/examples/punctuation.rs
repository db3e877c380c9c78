//! Sends a reminder for each order that is not paid within half an hour, from a stream-time punctuation:
//! `cargo run -p foretell-streams --example punctuation`.
//!
//! ```text
//!   orders ───▶ remind ─▶ reminders
//!                 │ store: unpaid, by key and time
//!   payments ─▶  pay
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{error::Error, sync::Arc, time::Duration};

use foretell_streams::{
    codec::Utf8,
    record::{OutputRecord, Topic},
    state::WindowHandle,
    time::EventTime,
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, Topology,
        TopologyBuilder,
    },
};

mod on_a_broker;

use on_a_broker::{Run, text};

const TIME_TO_PAY: Duration = Duration::from_secs(30 * 60);
/// Maximum number of reminders from one punctuation. The next punctuation sends the rest.
const REMINDERS_MAX: usize = 1000;

/// Stores orders, and forwards a reminder for those that are not removed in time.
struct Remind {
    unpaid: WindowHandle<String>,
}

impl Processor for Remind {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::StreamTime, Duration::from_secs(60));
    }

    fn process(
        &mut self,
        order: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        ctx.window(&self.unpaid).add(order.text_key()?, order.time, &order.value)?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(time) = punctuation else { return Ok(()) };
        for order in ctx.window(&self.unpaid).expire(time - TIME_TO_PAY, REMINDERS_MAX)? {
            let value = format!("{} is not paid for", order.value);
            ctx.forward(&Record { key: Some(order.key.into_bytes()), value, time })?;
        }
        Ok(())
    }
}

/// Removes the orders of a customer who has paid.
struct Pay {
    unpaid: WindowHandle<String>,
}

impl Processor for Pay {
    type In = String;
    type Out = ();

    fn process(
        &mut self,
        payment: &Record<String>,
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), ProcessError> {
        let mut unpaid = ctx.window(&self.unpaid);
        for order in unpaid.fetch_all(payment.text_key()?)? {
            unpaid.remove(&order);
        }
        Ok(())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new("reminders", Topic::new("dead-letters"));
    let orders = builder.source("orders", Topic::new("orders"), Arc::new(Utf8));
    let payments = builder.source("payments", Topic::new("payments"), Arc::new(Utf8));
    let unpaid = builder.window_store::<String>("unpaid", Arc::new(Utf8));
    let stores = [unpaid.id()];
    let paid = unpaid.clone();
    builder.process("pay", &[payments], &stores, move || Pay { unpaid: paid.clone() });
    let remind =
        builder.process("remind", &[orders], &stores, move || Remind { unpaid: unpaid.clone() });
    builder.sink("reminders", &[remind], Topic::new("reminders"), Arc::new(Utf8));
    builder.build()
}

pub(crate) fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let record = |topic: &str, key: &str, value: &str, minute: u64| {
        let time = EventTime(1_704_067_200_000) + Duration::from_secs(60 * minute);
        OutputRecord::new(&Topic::new(topic), Some(key.as_bytes()), Some(value.as_bytes()), time)
    };
    let run = Run {
        group: "reminders",
        topology: topology(),
        partitions: 1,
        input: vec![
            record("orders", "ann", "a book", 0),
            record("orders", "bob", "a lamp", 5),
            record("payments", "ann", "by card", 12),
            // Advances stream time: bob's order is now older than half an hour.
            record("orders", "cid", "a chair", 40),
        ],
        outputs: vec![Topic::new("reminders")],
        expected: 1,
    };
    let reminders = run.locally()?;
    Ok(reminders
        .iter()
        .map(|record| format!("{}: {}", text(record.key.as_deref()), text(record.value.as_deref())))
        .collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    for reminder in run()? {
        println!("{reminder}");
    }
    Ok(())
}
