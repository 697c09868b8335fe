//! Reading a stream of server-sent events (WHATWG HTML, "Server-sent events"), as bytes come in.

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its kind; empty when the server gave none.
    pub name: String,
    /// Its lines of data, joined.
    pub data: String,
}

/// Bytes in, events out. Comments, ids and unknown fields are passed over.
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    event: Event,
}

impl EventReader {
    /// Longest line read; a longer one is no event of ours and is dropped.
    const MOST_LINE_BYTES: usize = 4 * 1024 * 1024;

    /// The events that end in `bytes`.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < Self::MOST_LINE_BYTES {
                    self.line.push(byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            events.extend(self.take_line(line.trim_end_matches('\r')));
        }
        events
    }

    fn take_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream =
            b": hello\n\nevent: render\r\nid: 7\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:x\n\nevent: y\ndata: half";
        for size in 1..stream.len() {
            let mut reader = EventReader::default();
            let events: Vec<Event> = stream.chunks(size).flat_map(|bytes| reader.push(bytes)).collect();
            let first = Event { name: "render".into(), data: "{\"a\":\n1}".into() };
            assert_eq!(events, [first, Event { name: String::new(), data: "x".into() }], "chunks of {size}");
        }
    }
}
