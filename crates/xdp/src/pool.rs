//! Frames and runs of a worker that nobody holds, and runs that the kernel is sending.
//!
//! The kernel gives a run back frame by frame, in any order. A mask for each run of the region
//! says which of its frames are still to come; the last one frees the run, and one that was not
//! expected is an impossible completion.

use culvert_frame::FreeFrame;
use culvert_frame::Region;

/// What sockets take frames from and put them back to.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) frames: Vec<FreeFrame>,
    pub(crate) runs: Vec<FreeFrame>,
    /// A bit for each frame of each run that the kernel has not given back.
    sending: Box<[u8]>,
}

/// What a completion inside a run means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    /// More frames of the run are to come.
    Part,
    /// The run with this index was sent.
    Run(usize),
    /// No such frame was being sent.
    Impossible,
}

impl Pool {
    /// A pool of these frames and runs, with room for all others of the region.
    pub(crate) fn new(region: &Region, minted: Vec<FreeFrame>) -> Pool {
        let mut pool = Pool {
            frames: Vec::with_capacity(region.frames()),
            runs: Vec::with_capacity(region.runs()),
            sending: vec![0; region.runs()].into_boxed_slice(),
        };
        minted.into_iter().for_each(|frame| pool.put(frame));
        pool
    }

    /// Takes back a frame or a run.
    #[inline]
    pub(crate) fn put(&mut self, frame: FreeFrame) {
        match frame.is_run() {
            false => self.frames.push(frame),
            true => self.runs.push(frame),
        }
    }

    /// Notes that the kernel is sending `count` frames of run `run`, from frame `first` on.
    pub(crate) fn begin(&mut self, (run, first): (usize, usize), count: usize) {
        self.sending[run] = (first..first + count).fold(0, |mask, frame| mask | 1 << frame);
    }

    /// Notes that the kernel has sent frame `frame` of run `run`.
    #[cold]
    pub(crate) fn complete(&mut self, (run, frame): (usize, usize)) -> Completed {
        let Some(sending) = self.sending.get_mut(run).filter(|mask| **mask & 1 << frame != 0)
        else {
            return Completed::Impossible;
        };
        *sending &= !(1 << frame);
        if *sending == 0 { Completed::Run(run) } else { Completed::Part }
    }

    /// Runs that the kernel is sending, and how many of their frames.
    pub(crate) fn sending(&self) -> (usize, usize) {
        let frames: u32 = self.sending.iter().map(|mask| mask.count_ones()).sum();
        (self.sending.iter().filter(|&&mask| mask != 0).count(), frames as usize)
    }

    /// Gives every free frame and run away for good.
    pub(crate) fn release(&mut self, region: &Region) {
        for frame in self.frames.drain(..).chain(self.runs.drain(..)) {
            let _ = region.release_free(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use culvert_frame::Port;

    use super::*;

    /// A run is free again when each of its frames was completed, whatever the order; a frame that
    /// is completed twice, or was not sent, is impossible.
    #[test]
    fn a_run_is_complete_when_all_its_frames_are() {
        let (region, minted) = Region::leak_with_runs(1, 2);
        let mut pool = Pool::new(region, minted);
        let packet = pool.runs.pop().unwrap().into_packet(2000, 5000, Port(0));
        assert_eq!(packet.parts(), 4);
        pool.begin((1, 0), packet.parts());
        assert_eq!(pool.sending(), (1, 4));
        assert_eq!(pool.complete((1, 2)), Completed::Part);
        assert_eq!(pool.complete((1, 2)), Completed::Impossible);
        assert_eq!(pool.complete((1, 4)), Completed::Impossible);
        assert_eq!(pool.complete((0, 0)), Completed::Impossible);
        assert_eq!(pool.complete((9, 0)), Completed::Impossible);
        assert_eq!(pool.complete((1, 0)), Completed::Part);
        assert_eq!(pool.complete((1, 3)), Completed::Part);
        assert_eq!(pool.complete((1, 1)), Completed::Run(1));
        assert_eq!(pool.sending(), (0, 0));
        let _ = region.release_packet(packet);
        pool.release(region);
    }
}
