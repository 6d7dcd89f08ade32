//! Content in several zstd frames: decompressed at the same time, and hashed in order while they come. A server
//! that recovers waits for each segment.

use std::collections::BTreeMap;
use std::iter::Enumerate;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use crate::format::BadFormat;
use crate::read::parallel;

pub(super) type Sum = [u8; 32];

/// A frame and the place of its content.
type Job<'a> = (&'a [u8], &'a mut [u8]);
type Jobs<'a> = Mutex<Enumerate<std::vec::IntoIter<Job<'a>>>>;
/// The number of a frame and its content.
type Done<'a> = (usize, Result<&'a [u8], BadFormat>);

/// The content, which must have this length, and its SHA-256. `None` when there is nothing to be won, or the frames do
/// not say their lengths: then they are to be read as one stream.
pub(super) fn open(body: &[u8], length: usize) -> Option<Result<(Vec<u8>, Sum), BadFormat>> {
    let frames = split(body)?;
    let total = frames.iter().try_fold(0_usize, |sum, (_, content)| sum.checked_add(*content));
    if frames.len() < 2 || total != Some(length) {
        return None;
    }
    let mut content = vec![0; length];
    let (mut jobs, mut rest) = (Vec::with_capacity(frames.len()), &mut content[..]);
    for (frame, bytes) in frames {
        let (place, behind) = rest.split_at_mut(bytes);
        jobs.push((frame, place));
        rest = behind;
    }
    let threads = parallel::cores().min(jobs.len());
    let jobs = Mutex::new(jobs.into_iter().enumerate());
    let (tell, done) = channel();
    let sum = thread::scope(|scope| {
        for _ in 0..threads {
            let (jobs, tell) = (&jobs, tell.clone());
            scope.spawn(move || decompress(jobs, &tell));
        }
        drop(tell);
        hash(&done)
    });
    drop((jobs, done));
    Some(sum.map(|sum| (content, sum)))
}

/// Each frame with the length of its content.
fn split(mut body: &[u8]) -> Option<Vec<(&[u8], usize)>> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let content = get_frame_content_size(body).ok()??;
        let (frame, rest) = body.split_at_checked(find_frame_compressed_size(body).ok()?)?;
        frames.push((frame, usize::try_from(content).ok()?));
        body = rest;
    }
    Some(frames)
}

fn decompress<'a>(jobs: &Jobs<'a>, tell: &Sender<Done<'a>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some((number, (frame, place))) = job else { return };
        let done = match zstd::bulk::decompress_to_buffer(frame, place) {
            Ok(given) if given == place.len() => Ok(&*place),
            Ok(_) => Err(BadFormat::new("it is shorter than it says")),
            Err(error) => Err(BadFormat::new(format!("decompress: {error}"))),
        };
        if tell.send((number, done)).is_err() {
            return;
        }
    }
}

fn hash(done: &Receiver<Done<'_>>) -> Result<Sum, BadFormat> {
    let (mut sum, mut next, mut early) = (Sha256::new(), 0, BTreeMap::new());
    for (number, content) in done {
        early.insert(number, content?);
        while let Some(content) = early.remove(&next) {
            sum.update(content);
            next += 1;
        }
    }
    Ok(sum.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(pieces: &[&[u8]]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| zstd::bulk::compress(piece, 1).unwrap()).collect()
    }

    #[test]
    fn frames_in_a_row_are_their_contents_in_a_row() {
        let pieces: Vec<Vec<u8>> =
            (0..9_u8).map(|n| (0..50_000 + u32::from(n)).map(|byte| (byte % 251) as u8 ^ n).collect()).collect();
        let all = pieces.concat();
        let body = frames(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (content, sum) = open(&body, all.len()).unwrap().unwrap();
        assert!(content == all);
        assert_eq!(sum[..], Sha256::digest(&all)[..]);
        // Another length than was promised is not guessed at.
        assert!(open(&body, all.len() + 1).is_none());
        assert!(open(&body[..body.len() - 1], all.len()).is_none());
        assert!(open(&frames(&[&all]), all.len()).is_none(), "one frame is a stream");
        assert!(open(b"no frame", 8).is_none());
    }

    #[test]
    fn a_damaged_frame_is_an_error() {
        let pieces: Vec<Vec<u8>> =
            (0..3).map(|n| (0..40_000_u32).map(|byte| (byte * n % 253) as u8).collect()).collect();
        let mut body = frames(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let right = open(&body, 120_000).unwrap().unwrap();
        let mut noticed = 0;
        for at in 0..body.len() {
            body[at] ^= 0x55;
            // Either it does not open, or its hash is another one.
            noticed += u32::from(open(&body, 120_000).is_none_or(|done| done.is_err() || done != Ok(right.clone())));
            body[at] ^= 0x55;
        }
        assert!(noticed > 0 && noticed as usize * 2 > body.len(), "{noticed} of {}", body.len());
    }
}
