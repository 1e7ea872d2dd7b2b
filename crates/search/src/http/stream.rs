//! A stream of server-sent events, read as it arrives. In: bytes, cut anywhere. Out: the data of each event that is whole. Whoever reads
//! bounds the bytes.

/// What has arrived of a stream.
#[derive(Default)]
pub struct Events {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The data of the event that is not whole yet.
    data: Option<Vec<u8>>,
    /// Whether the last byte ended a line that a line feed may still belong to.
    after_return: bool,
}

impl Events {
    /// Reads on: the data of each event that these bytes complete.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = vec![];
        for byte in bytes {
            let is_second = std::mem::replace(&mut self.after_return, *byte == b'\r') && *byte == b'\n';
            match byte {
                _ if is_second => {}
                b'\r' | b'\n' => whole.extend(self.end_of_line()),
                byte => self.line.push(*byte),
            }
        }
        whole
    }

    /// The event that ends with this line, which is empty then.
    fn end_of_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take();
        }
        // Names, ids and pauses of events, and comments, say nothing that is needed.
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[],
            Some([b':', b' ', value @ ..]) | Some([b':', value @ ..]) => value,
            _ => return None,
        };
        match &mut self.data {
            None => self.data = Some(value.to_vec()),
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_they_are_cut() {
        let stream =
            b": hello\r\n\r\nevent: message\r\nid: 7\r\ndata: {\"a\":\r\ndata:1}\r\n\r\ndata\n\ndata: x\rdatas: y\r\rdata: never ends\n";
        let expected: Vec<Vec<u8>> = vec![b"{\"a\":\n1}".to_vec(), vec![], b"x".to_vec()];
        for size in 1..stream.len() {
            let mut events = Events::default();
            let whole: Vec<Vec<u8>> = stream.chunks(size).flat_map(|chunk| events.read(chunk)).collect();
            assert_eq!(whole, expected, "in pieces of {size}");
        }
    }
}
