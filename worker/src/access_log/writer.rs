//! The writer: takes lines out of the queue, renders them, and writes them in batches of whole lines.
//!
//! It is a thread and no task, since a disk or a pipe's reader may hold it up for ever. Nothing waits for it.

use std::sync::Arc;

use super::Line;
use super::queue::{Orders, Queue};
use super::sink::{NARROW, Sink, Written};

/// Starts the writer of a queue, unless it has one. False: there is none.
pub(super) fn start(queue: &Arc<Queue>) -> bool {
    if !queue.note_writer() {
        return true;
    }
    let theirs = Arc::clone(queue);
    let thread = std::thread::Builder::new().name("holdfast-access".to_owned());
    let started = thread.spawn(move || Writer::new(theirs).run());
    if let Err(error) = &started {
        queue.note_no_writer();
        tracing::error!(%error, "no thread for the access log: nothing is logged");
    }
    started.is_ok()
}

struct Writer {
    queue: Arc<Queue>,
    sink: Option<Sink>,
    batch: Vec<u8>,
    /// It has been said that lines cannot be written; over once one can.
    failing: bool,
}

impl Writer {
    fn new(queue: Arc<Queue>) -> Self {
        Self { queue, sink: None, batch: Vec::new(), failing: false }
    }

    /// For as long as the process lives.
    fn run(mut self) {
        loop {
            let (lines, orders) = self.queue.next();
            self.obey(orders);
            self.deliver(&lines);
        }
    }

    fn obey(&mut self, Orders { destination, reopen }: Orders) {
        if let Some(destination) = destination {
            self.sink = Sink::new(destination);
        }
        if let (Some(sink), true) = (&mut self.sink, reopen) {
            sink.reopen();
        }
    }

    fn deliver(&mut self, lines: &[Line]) {
        let Some(sink) = &mut self.sink else {
            // There was a log when they were taken, and there is none any more.
            return;
        };
        let [most, widest] = sink.bounds();
        let mut count = 0;
        for line in lines {
            let begin = self.batch.len();
            if !render(line, &mut self.batch, widest, most) {
                self.queue.count_dropped(1);
                continue;
            }
            if self.batch.len() > most {
                let rest = self.batch.split_off(begin);
                self.put(count);
                (self.batch, count) = (rest, 0);
            }
            count += 1;
        }
        self.put(count);
        // Nothing of a burst is kept.
        self.batch.shrink_to(64 << 10);
    }

    /// Writes the batch, however long that takes, or finds that it cannot.
    fn put(&mut self, count: u64) {
        while !self.batch.is_empty() {
            let Some(sink) = &mut self.sink else {
                self.queue.count_dropped(count);
                break;
            };
            match sink.write(&self.batch) {
                Written::All => {
                    self.queue.count_written(count);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the access log is written again");
                    }
                    break;
                }
                Written::Nothing => {
                    let orders = self.queue.take_orders();
                    self.obey(orders);
                }
                Written::Failed(error) => {
                    self.queue.count_dropped(count);
                    if !std::mem::replace(&mut self.failing, true) {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(
                            error,
                            "the access log cannot be written: lines are dropped; \
                             holdfast_access_log_lines_total counts them"
                        );
                    }
                    break;
                }
            }
        }
        self.batch.clear();
    }
}

/// Appends a line of at most `most` bytes: with shorter values where those of `widest` bytes make it too long. False: it is
/// too long even so, and left out, since it would not stay in one piece.
fn render(line: &Line, into: &mut Vec<u8>, widest: usize, most: usize) -> bool {
    let begin = into.len();
    for widest in [widest, NARROW] {
        if line.render(into, widest).is_ok() && into.len() - begin <= most {
            return true;
        }
        into.truncate(begin);
    }
    false
}
